"""A released model by both backends, a batch of everything, and what it takes for two outputs to be equal."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from ase import Atoms
from torch import Tensor

from ase_fastchgnet.graph import Cutoffs, GraphBatch, build_batch
from ase_fastchgnet.model.checkpoint import Checkpoint, load_checkpoint
from ase_fastchgnet.model.config import ModelConfig
from ase_fastchgnet.model.engine import Engine
from ase_fastchgnet.model.output import ModelOutput
from ase_fastchgnet.model.parameters import Parameters, stock_shapes
from ase_fastchgnet.model.reference import ReferenceModel
from tests.structures import STRUCTURES

MODELS = ("0.3.0", "0.2.0", "r2scan")
# With and without angles, edges and a cell; one atom, a dimer; periodic along three, two, one and no axes.
MIXED = [
    "K bcc, no bond below 3 Å",
    "one atom, no cell",
    "LiMnO2 rattled",
    "dimer in vacuum",
    "dimer too far to bond",
    "Fe bcc, one atom",
    "wire",
    "slab on its side",
    "disordered",
    "Cu gas, atoms 7 Å apart",
    "water, no cell",
]
# A force is a sum of 100 edges' gradients of up to 10 eV/Å, each rounded some 1000 times at 1.1e-16 on its way through
# four blocks: 1e-12 at random, a few at worst. A single float32 rounding on that way would make 1e-7.
TOLERANCE = 1e-11


@dataclass(frozen=True)
class Model:
    checkpoint: Checkpoint

    @property
    def cutoffs(self) -> Cutoffs:
        return Cutoffs(self.checkpoint.config.atom_cutoff, self.checkpoint.config.bond_cutoff)

    @cached_property
    def engine(self) -> Engine:
        return Engine(self.checkpoint, dtype=torch.float64)

    @cached_property
    def reference(self) -> ReferenceModel:
        return ReferenceModel(self.checkpoint, dtype=torch.float64)

    def graph(self, *structures: str | Atoms) -> GraphBatch:
        """A batch of these structures, given as they are or by name."""
        return build_batch([STRUCTURES[s] if isinstance(s, str) else s for s in structures], self.cutoffs)


def random_checkpoint(**changes: Any) -> Checkpoint:
    """A configuration that was never released, with random weights under which every part of the model has a say."""
    values = load_checkpoint("0.3.0").config.to_dict() | {"n_radial": 7, "n_angular": 5}
    config = ModelConfig(**(values | changes))
    random = torch.Generator().manual_seed(1)

    def weight(name: str, shape: tuple[int, ...]) -> Tensor:
        x = torch.randn(shape, generator=random, dtype=torch.float64)
        if "frequencies" in name:
            return (torch.pi if "rbf" in name else 1.0) * torch.arange(1, len(x) + 1) + 0.05 * x
        if name.endswith("weight") and len(shape) == 1:  # of a layer norm
            return 1 + 0.1 * x
        return x if "embedding" in name else x / shape[-1] ** 0.5

    state = {name: weight(name, shape) for name, shape in stock_shapes(config).items()}
    parameters = Parameters.from_state_dict(state, config)
    return Checkpoint(name="random", config=config, parameters=parameters, sha256="0" * 64)


def assert_close(found: ModelOutput, expected: ModelOutput, tolerance: float = TOLERANCE) -> None:
    """Within `tolerance`, or that part of the largest value if it is larger than 1 (eV, μ_B, eV/Å)."""
    for name, a, b in zip(ModelOutput._fields, found, expected, strict=True):
        assert a is not None, name
        assert a.dtype == b.dtype == torch.float64, name
        assert a.shape == b.shape, name
        assert a.isfinite().all(), name
        error, scale = float((a - b).abs().max()), max(1.0, float(b.abs().max()))
        assert error <= tolerance * scale, f"{name}: {error:.1e} at a scale of {scale:.1e}"


def assert_same_bits(found: ModelOutput, expected: ModelOutput) -> None:
    for name, a, b in zip(ModelOutput._fields, found, expected, strict=True):
        assert torch.equal(a, b), name


def systems(output: ModelOutput, graph: GraphBatch) -> Iterator[ModelOutput]:
    """The output of a batch taken apart."""
    for system, (start, end) in enumerate(zip(graph.atom_ptr[:-1], graph.atom_ptr[1:], strict=True)):
        atoms, one = slice(int(start), int(end)), slice(system, system + 1)
        yield ModelOutput(
            output.atom_energies[atoms],
            output.magmoms[atoms],
            output.site_embeddings[atoms],
            output.final_embeddings[atoms],
            output.forces[atoms],
            output.virial[one],
        )
