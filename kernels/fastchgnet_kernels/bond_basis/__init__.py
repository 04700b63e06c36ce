"""Radial Bessel basis of bond lengths under a smooth envelope (CHGNet, `RadialBessel` and `CutoffPolynomial`).

b_k(r) = √(2/c) sin(f_k r/c)/r · u(r/c), with learnt frequencies f_k, cut-off c and
u(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2).

Models read it through weights W alone, so that the op is the product, and kernels do not write the basis to memory but
for the readout of direct forces, which asks for its `values`.
Forward: y = b(r) W.
Backward: grad_b = grad_y Wᵀ and grad_r = Σ_k grad_b_k b_k'(r), summed over all W that read the same bonds. Plain torch
sums grad_b, kernels sum grad_r; `grad_length` makes grad_r of either.
"""

from fastchgnet_kernels.bond_basis.basis import Basis
from fastchgnet_kernels.bond_basis.function import (
    backward,
    chosen,
    expand,
    forward,
    grad_length,
    new_grad,
    slope,
    values,
)
from fastchgnet_kernels.bond_basis.reference import envelope

__all__ = [
    "Basis",
    "backward",
    "chosen",
    "envelope",
    "expand",
    "forward",
    "grad_length",
    "new_grad",
    "slope",
    "values",
]
