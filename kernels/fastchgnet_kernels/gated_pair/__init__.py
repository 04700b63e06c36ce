"""A gated message, summed over segments, and a gated update of the same rows: BondConv and AngleUpdate in one pass.

Pre-activations lie side by side, z = [message core | gate | update core | gate] (messages, 4D), and are gathered once.
Forward:  z = Σ_k table[rows[m, k]] + x_m W,  out_s = Σ_{m in s} p(z_message)_m ⊙ w_m,  updated_m += p(z_update)_m.
Backward: of each as in `gated_message` and `gated_update`; grad_table and grad_x are one sum over both.
"""

from fastchgnet_kernels.gated_pair.function import Kept, backward, forward

__all__ = ["Kept", "backward", "forward"]
