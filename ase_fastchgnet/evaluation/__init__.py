"""list[Atoms] → list[Prediction].

Not called `evaluate`: importing a subpackage of that name would replace the function `ase_fastchgnet.evaluate`.
"""

from .backend import load_backend
from .evaluator import evaluate
from .memory import estimate_memory
from .prediction import Prediction

__all__ = ["Prediction", "estimate_memory", "evaluate", "load_backend"]
