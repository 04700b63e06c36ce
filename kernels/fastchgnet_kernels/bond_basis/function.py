"""Picks who computes the basis of bond lengths. No maths in this file.

Learning of frequencies differentiates slopes by them, which the kernel cannot do.
"""

import torch
from torch import Tensor

from fastchgnet_kernels._launch import runs_kernels
from fastchgnet_kernels.bond_basis import reference


def forward(r: Tensor, frequencies: Tensor, cutoff: float, exponent: int) -> Tensor:
    """b_k(r).  r (n,), frequencies (k,) → (n, k) in the dtype of the frequencies."""
    if not runs_kernels(r.device):
        return reference.forward(r, frequencies, cutoff, exponent)
    from fastchgnet_kernels.bond_basis import kernel

    return kernel.forward(r, frequencies, cutoff, exponent)


def backward(grad_basis: Tensor, r: Tensor, frequencies: Tensor, cutoff: float, exponent: int) -> Tensor:
    """grad_r = Σ_k grad_k b_k'(r), (n,) float64."""
    if not runs_kernels(r.device):
        return reference.backward(grad_basis, r, frequencies, cutoff, exponent)
    from fastchgnet_kernels.bond_basis import kernel

    return kernel.backward(grad_basis, r, frequencies, cutoff, exponent)


def slope(r: Tensor, frequencies: Tensor, cutoff: float, exponent: int) -> Tensor:
    """b_k'(r), (n, k) in the dtype of the frequencies."""
    differentiated = torch.is_grad_enabled() and frequencies.requires_grad
    if differentiated or not runs_kernels(r.device):
        return reference.slope(r, frequencies, cutoff, exponent)
    from fastchgnet_kernels.bond_basis import kernel

    return kernel.slope(r, frequencies, cutoff, exponent)
