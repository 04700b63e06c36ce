"""The reference differentiated twice by autograd: the oracle of a network's outputs and of their gradients."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ase_fastchgnet.graph import GraphBatch
from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.model.config import REFERENCE_ENERGIES
from ase_fastchgnet.model.network import NetworkOutput
from ase_fastchgnet.model.parameters import Parameters
from ase_fastchgnet.model.reference import ReferenceModel


def weights_of(checkpoint: Checkpoint, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Leaves with stock's names; reference energies stay in float64, and are not differentiated by."""
    state = checkpoint.parameters.to_state_dict(checkpoint.config)
    return {
        name: x.clone() if name == REFERENCE_ENERGIES else x.to(dtype, copy=True).requires_grad_()
        for name, x in state.items()
    }


def plain_network(checkpoint: Checkpoint, weights: Mapping[str, Tensor], graph: GraphBatch) -> NetworkOutput:
    """What a network with these weights gives for "conservative"."""
    dtype = next(x.dtype for name, x in weights.items() if name != REFERENCE_ENERGIES)
    model = ReferenceModel(checkpoint, dtype=dtype)
    model.parameters = Parameters.of(weights, checkpoint.config)
    tape = model.forward(graph)
    grad_positions, virial = torch.autograd.grad(
        tape.energies.sum(), (tape.positions, tape.strain), create_graph=True, materialize_grads=True
    )
    own = model.parameters.reference_energies[graph.numbers.long() - 1]
    total = torch.zeros(graph.n_systems, dtype=torch.float64)
    total = total.index_add(0, graph.system_of_atom, tape.energies.double() + own)
    volume = graph.volume()
    stress = virial.double() / volume.where(volume > 0, torch.inf)[:, None, None]
    return NetworkOutput(total, tape.magmoms.double(), -grad_positions.double(), stress)


def weighted_sum(output: NetworkOutput) -> Tensor:
    """A sum of all that was predicted, every number times a random one of its own."""
    random = torch.Generator().manual_seed(7)
    # Stress is small in eV/Å³: as 1 GPa = 0.006 eV/Å³, it counts for as much as the forces.
    scales = {"energies": 1.0, "magmoms": 1.0, "forces": 1.0, "stress": 160.0}
    total = torch.zeros((), dtype=torch.float64)
    for name, x in output._asdict().items():
        if x is not None:
            total = total + scales[name] * (x * torch.randn(x.shape, generator=random)).sum()
    return total


def gradients(scalar: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those with respect to all weights that have one; zero where the scalar does not depend on them."""
    wanted = {name: x for name, x in weights.items() if x.requires_grad}
    found = torch.autograd.grad(scalar, list(wanted.values()), materialize_grads=True, allow_unused=True)
    return dict(zip(wanted, found, strict=True))
