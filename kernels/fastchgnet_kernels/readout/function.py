"""Picks who computes energies and their adjoint. No maths in this file.

Training differentiates both, by features and by weights, which the kernels cannot do.
"""

import torch
from torch import Tensor

from fastchgnet_kernels._launch import runs_kernels
from fastchgnet_kernels.readout import reference
from fastchgnet_kernels.readout.weights import Kept, ReadoutWeights


def forward(atoms: Tensor, weights: ReadoutWeights) -> tuple[Tensor, Tensor, Kept | None]:
    """Energies (atoms,) eV, normalised features (atoms, D), and what `backward` may be given to do less."""
    if _differentiated(atoms, weights) or not runs_kernels(atoms.device):
        return reference.forward(atoms, weights)
    from fastchgnet_kernels.readout import kernel

    return *kernel.forward(atoms, weights), None


def backward(atoms: Tensor, weights: ReadoutWeights, kept: Kept | None) -> Tensor:
    """∂(energy of the atom)/∂(its features), (atoms, D)."""
    if _differentiated(atoms, weights) or not runs_kernels(atoms.device):
        return reference.backward(atoms, weights, reference.forward(atoms, weights)[2] if kept is None else kept)
    from fastchgnet_kernels.readout import kernel

    return kernel.backward(atoms, weights)


def _differentiated(atoms: Tensor, weights: ReadoutWeights) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (atoms, *weights))
