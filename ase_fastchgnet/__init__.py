"""CHGNet, exact and fast, as an ASE calculator.

The public names are loaded when first used: `import ase_fastchgnet` alone does not import torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ase_fastchgnet.calculator import FastCHGNet as FastCHGNet
    from ase_fastchgnet.evaluation import Prediction as Prediction
    from ase_fastchgnet.evaluation import estimate_memory as estimate_memory
    from ase_fastchgnet.evaluation import evaluate as evaluate
    from ase_fastchgnet.model.checkpoint import load_checkpoint as load_checkpoint
    from ase_fastchgnet.model.checkpoint import save_checkpoint as save_checkpoint
    from ase_fastchgnet.training.config import FINETUNE as FINETUNE
    from ase_fastchgnet.training.config import TrainConfig as TrainConfig
    from ase_fastchgnet.training.run import Training as Training
    from ase_fastchgnet.training.run import finetune as finetune
    from ase_fastchgnet.training.run import train as train
    from ase_fastchgnet.workflows.dynamics import MDRun as MDRun
    from ase_fastchgnet.workflows.dynamics import md as md
    from ase_fastchgnet.workflows.elastic_band import ReactionPath as ReactionPath
    from ase_fastchgnet.workflows.elastic_band import neb as neb
    from ase_fastchgnet.workflows.elasticity import Elasticity as Elasticity
    from ase_fastchgnet.workflows.elasticity import elastic as elastic
    from ase_fastchgnet.workflows.equation_of_state import EquationOfState as EquationOfState
    from ase_fastchgnet.workflows.equation_of_state import eos as eos
    from ase_fastchgnet.workflows.lattice_dynamics import Phonons as Phonons
    from ase_fastchgnet.workflows.lattice_dynamics import phonons as phonons
    from ase_fastchgnet.workflows.radial_distribution import RadialDistribution as RadialDistribution
    from ase_fastchgnet.workflows.radial_distribution import radial_distribution as radial_distribution
    from ase_fastchgnet.workflows.relaxation import Relaxation as Relaxation
    from ase_fastchgnet.workflows.relaxation import RelaxationError as RelaxationError
    from ase_fastchgnet.workflows.relaxation import relax as relax
    from ase_fastchgnet.workflows.relaxation_many import relax_many as relax_many
    from ase_fastchgnet.workflows.replicas import md_replicas as md_replicas
    from ase_fastchgnet.workflows.screening import Screening as Screening
    from ase_fastchgnet.workflows.screening import evaluate_many as evaluate_many
    from ase_fastchgnet.workflows.screening import screen as screen
    from ase_fastchgnet.workflows.thermo import Thermo as Thermo
    from ase_fastchgnet.workflows.transport import Arrhenius as Arrhenius
    from ase_fastchgnet.workflows.transport import Diffusion as Diffusion
    from ase_fastchgnet.workflows.transport import arrhenius as arrhenius
    from ase_fastchgnet.workflows.transport import diffusion as diffusion
    from ase_fastchgnet.workflows.watch import DynamicsError as DynamicsError

__version__ = "0.1.0"
__all__ = [
    "FINETUNE",
    "Arrhenius",
    "Diffusion",
    "DynamicsError",
    "Elasticity",
    "EquationOfState",
    "FastCHGNet",
    "MDRun",
    "Phonons",
    "Prediction",
    "RadialDistribution",
    "ReactionPath",
    "Relaxation",
    "RelaxationError",
    "Screening",
    "Thermo",
    "TrainConfig",
    "Training",
    "__version__",
    "arrhenius",
    "diffusion",
    "elastic",
    "eos",
    "estimate_memory",
    "evaluate",
    "evaluate_many",
    "finetune",
    "load_checkpoint",
    "md",
    "md_replicas",
    "neb",
    "phonons",
    "radial_distribution",
    "relax",
    "relax_many",
    "save_checkpoint",
    "screen",
    "train",
]

_HOME = {
    "Arrhenius": "ase_fastchgnet.workflows.transport",
    "Diffusion": "ase_fastchgnet.workflows.transport",
    "DynamicsError": "ase_fastchgnet.workflows.watch",
    "Elasticity": "ase_fastchgnet.workflows.elasticity",
    "EquationOfState": "ase_fastchgnet.workflows.equation_of_state",
    "FINETUNE": "ase_fastchgnet.training.config",
    "FastCHGNet": "ase_fastchgnet.calculator",
    "MDRun": "ase_fastchgnet.workflows.dynamics",
    "Phonons": "ase_fastchgnet.workflows.lattice_dynamics",
    "Prediction": "ase_fastchgnet.evaluation",
    "RadialDistribution": "ase_fastchgnet.workflows.radial_distribution",
    "ReactionPath": "ase_fastchgnet.workflows.elastic_band",
    "Relaxation": "ase_fastchgnet.workflows.relaxation",
    "RelaxationError": "ase_fastchgnet.workflows.relaxation",
    "Thermo": "ase_fastchgnet.workflows.thermo",
    "TrainConfig": "ase_fastchgnet.training.config",
    "Training": "ase_fastchgnet.training.run",
    "arrhenius": "ase_fastchgnet.workflows.transport",
    "diffusion": "ase_fastchgnet.workflows.transport",
    "elastic": "ase_fastchgnet.workflows.elasticity",
    "eos": "ase_fastchgnet.workflows.equation_of_state",
    "estimate_memory": "ase_fastchgnet.evaluation",
    "evaluate": "ase_fastchgnet.evaluation",
    "evaluate_many": "ase_fastchgnet.workflows.screening",
    "finetune": "ase_fastchgnet.training.run",
    "load_checkpoint": "ase_fastchgnet.model.checkpoint",
    "md": "ase_fastchgnet.workflows.dynamics",
    "md_replicas": "ase_fastchgnet.workflows.replicas",
    "neb": "ase_fastchgnet.workflows.elastic_band",
    "phonons": "ase_fastchgnet.workflows.lattice_dynamics",
    "radial_distribution": "ase_fastchgnet.workflows.radial_distribution",
    "relax": "ase_fastchgnet.workflows.relaxation",
    "relax_many": "ase_fastchgnet.workflows.relaxation_many",
    "save_checkpoint": "ase_fastchgnet.model.checkpoint",
    "screen": "ase_fastchgnet.workflows.screening",
    "Screening": "ase_fastchgnet.workflows.screening",
    "train": "ase_fastchgnet.training.run",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | _HOME.keys())
