"""The gated message of CHGNet, summed over segments: AtomConv and BondConv (AngleUpdate: see `gated_update`).

Forward, message m:   z = Σ_k table[rows[m, k]] (+ x_m W),   [core | gate]
                      y = silu(z) W₂ + b₂
                      p_m = silu(LN(y_core)) · sigmoid(LN(y_gate))
                      out_s = Σ_{m in s} p_m ⊙ w_m
The first linear of a concatenation is a sum of projections, W[a, b, c] = W_a a + W_b b + W_c c, so it is done per atom
and per bond, before the gather.

Backward, g = grad_out[s(m)]:   grad_w_m = g p_m,   grad_p = g w_m,
                      grad_a = grad_p σ(b) silu'(a),   grad_b = grad_p silu(a) σ(b)(1 - σ(b)),   a, b = LN(y)
                      grad_y = rstd (γ grad_a - mean(γ grad_a) - ŷ mean(ŷ γ grad_a)),
                      grad_z = silu'(z) (grad_y W₂ᵀ);   grad_table is the gather transposed, grad_x = grad_z Wᵀ.
"""

from fastchgnet_kernels.gated_message.function import MessageGradients, Segments, Weighting, backward, forward
from fastchgnet_kernels.gated_message.rows import Kept, Rows
from fastchgnet_kernels.gated_message.scratch import Scratch, thread_scratch
from fastchgnet_kernels.gated_message.weights import Dense, GatedWeights, Incidence

__all__ = [
    "Dense",
    "GatedWeights",
    "Incidence",
    "Kept",
    "MessageGradients",
    "Rows",
    "Scratch",
    "Segments",
    "Weighting",
    "backward",
    "forward",
    "thread_scratch",
]
