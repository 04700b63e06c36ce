"""Sum of gathered rows over CSR segments: out[s] = Σ_{j in segment s} x[index[j]].

Backward: grad_x = the same sum over the transposed incidence. Every gather (fixed number of entries a row), every
reduction onto atoms and bonds, and every transposed gather in the model is this one op.
"""

from fastchgnet_kernels.segment_sum.function import forward
from fastchgnet_kernels.segment_sum.reference import backward

__all__ = ["backward", "forward"]
