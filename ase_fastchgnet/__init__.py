"""CHGNet, exact and fast, as an ASE calculator.

The public names are loaded when first used: `import ase_fastchgnet` alone does not import torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase_fastchgnet.calculator import FastCHGNet as FastCHGNet
    from ase_fastchgnet.evaluation import Prediction as Prediction
    from ase_fastchgnet.evaluation import evaluate as evaluate
    from ase_fastchgnet.model.checkpoint import load_checkpoint as load_checkpoint
    from ase_fastchgnet.model.checkpoint import save_checkpoint as save_checkpoint
    from ase_fastchgnet.workflows.relaxation import Relaxation as Relaxation
    from ase_fastchgnet.workflows.relaxation import RelaxationError as RelaxationError
    from ase_fastchgnet.workflows.relaxation import relax as relax
    from ase_fastchgnet.workflows.relaxation import relax_many as relax_many

__version__ = "0.1.0"
__all__ = [
    "FastCHGNet",
    "Prediction",
    "Relaxation",
    "RelaxationError",
    "__version__",
    "evaluate",
    "load_checkpoint",
    "relax",
    "relax_many",
    "save_checkpoint",
]

_HOME = {
    "FastCHGNet": "ase_fastchgnet.calculator",
    "Prediction": "ase_fastchgnet.evaluation",
    "Relaxation": "ase_fastchgnet.workflows.relaxation",
    "RelaxationError": "ase_fastchgnet.workflows.relaxation",
    "evaluate": "ase_fastchgnet.evaluation",
    "load_checkpoint": "ase_fastchgnet.model.checkpoint",
    "relax": "ase_fastchgnet.workflows.relaxation",
    "relax_many": "ase_fastchgnet.workflows.relaxation",
    "save_checkpoint": "ase_fastchgnet.model.checkpoint",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | _HOME.keys())
