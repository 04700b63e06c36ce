"""Radial Bessel basis of bond lengths under a smooth envelope (CHGNet, `RadialBessel` and `CutoffPolynomial`).

Forward: b_k(r) = √(2/c) sin(f_k r/c)/r · u(r/c), with learnt frequencies f_k, cut-off c and
u(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2).
Backward: grad_r = Σ_k grad_k b_k'(r), and `slope` is b_k'(r) itself.
"""

from fastchgnet_kernels.bond_basis.function import backward, forward, slope
from fastchgnet_kernels.bond_basis.reference import envelope

__all__ = ["backward", "envelope", "forward", "slope"]
