"""The gated MLP of AngleUpdate: the gated message row by row, without weights or sum.

Forward:  out_m += p_m = silu(LN(z_core)) · sigmoid(LN(z_gate)),  z = Σ_k table[rows[m, k]] + x_m W.
Backward: grad_p = grad_out; then as in `gated_message`.
"""

from fastchgnet_kernels.gated_update.function import backward, forward

__all__ = ["backward", "forward"]
