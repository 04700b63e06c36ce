"""Features of an atom → its energy: LayerNorm, hidden layers, and a sum with weights.

Forward:   x_0 = LN(a) (x_0 = a without a norm),   z_l = x_l W_l + b_l,   x_{l+1} = silu(z_l),   e = x_n · w + c
Backward:  ∂e/∂x_n = w,   ∂e/∂x_l = (∂e/∂x_{l+1} ⊙ silu'(z_l)) W_lᵀ,   and with g = γ ∂e/∂x_0, â = (a - mean a) rstd
           ∂e/∂a = rstd (g - mean g - â mean(â g)).
"""

from fastchgnet_kernels.readout.function import backward, forward
from fastchgnet_kernels.readout.weights import Kept, ReadoutWeights

__all__ = ["Kept", "ReadoutWeights", "backward", "forward"]
