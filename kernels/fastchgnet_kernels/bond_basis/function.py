"""Picks who computes the basis of bond lengths and its products. No maths in this file.

Learning of frequencies differentiates slopes by them, which the kernel cannot do.
"""

import torch
from torch import Tensor

from fastchgnet_kernels._launch import runs_kernels
from fastchgnet_kernels.bond_basis import reference
from fastchgnet_kernels.bond_basis.basis import Basis


def expand(r: Tensor, frequencies: Tensor, cutoff: float, exponent: int) -> Basis:
    """b_k of bonds of lengths r (n,), for frequencies (k,)."""
    kept = None if runs_kernels(r.device) else reference.values(r, frequencies, cutoff, exponent)
    return Basis(r, frequencies, cutoff, exponent, kept)


def chosen(basis: Basis, rows: Tensor) -> Basis:
    """That of the bonds `rows` (m,) alone."""
    kept = None if basis.values is None else basis.values.index_select(0, rows)
    return basis._replace(r=basis.r.index_select(0, rows), values=kept)


def values(basis: Basis) -> Tensor:
    """b_k(r), (n, k)."""
    if basis.values is not None:
        return basis.values
    from fastchgnet_kernels.bond_basis import kernel

    return kernel.values(basis)


def slope(r: Tensor, frequencies: Tensor, cutoff: float, exponent: int) -> Tensor:
    """b_k'(r), (n, k) in the dtype of the frequencies."""
    differentiated = torch.is_grad_enabled() and frequencies.requires_grad
    if differentiated or not runs_kernels(r.device):
        return reference.slope(r, frequencies, cutoff, exponent)
    from fastchgnet_kernels.bond_basis import kernel

    return kernel.slope(r, frequencies, cutoff, exponent)


def forward(basis: Basis, weight: Tensor, *, out: Tensor | None = None) -> Tensor:
    """y = b(r) W for W (k, m), (n, m); written into `out` if it is given."""
    out = weight.new_empty(basis.r.shape[0], weight.shape[1]) if out is None else out
    if basis.values is not None:
        return torch.mm(basis.values, weight, out=out)
    from fastchgnet_kernels.bond_basis import kernel

    return kernel.forward(basis, weight, out)


def new_grad(basis: Basis) -> Tensor:
    """What `backward` adds to: of the basis (n, k), or where kernels run of the lengths (n,), float64."""
    return torch.zeros_like(basis.r if basis.values is None else basis.values)


def backward(grad_y: Tensor, basis: Basis, weight: Tensor, *, grad: Tensor) -> None:
    """Adds to `grad` what y = b(r) W has of grad_y (n, m)."""
    if basis.values is not None:
        grad.addmm_(grad_y, weight.T)
        return
    from fastchgnet_kernels.bond_basis import kernel

    kernel.backward(grad_y, basis, weight, grad)


def grad_length(grad: Tensor, basis: Basis) -> Tensor:
    """∂E/∂r (n,), float64, of what `backward` has summed up."""
    if basis.values is None:
        return grad
    return reference.grad_length(grad, basis.r, basis.frequencies, basis.cutoff, basis.exponent)
