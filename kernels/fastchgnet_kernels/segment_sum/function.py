"""Picks who computes a segment sum. No maths in this file.

What is differentiated by autograd is left to the definition: the kernel has no gradient.
"""

import torch
from torch import Tensor

from fastchgnet_kernels._launch import runs_kernels
from fastchgnet_kernels.segment_sum import reference


def forward(x: Tensor, index: Tensor, ptr: Tensor) -> Tensor:
    """out[s] = Σ_{j = ptr[s]}^{ptr[s+1]-1} x[index[j]].

    x (rows, D), index (entries,), ptr (segments + 1,) with ptr[0] = 0 and ptr[-1] = entries → out (segments, D).
    """
    if not runs_kernels(x.device) or (torch.is_grad_enabled() and x.requires_grad):
        return reference.forward(x, index, ptr)
    from fastchgnet_kernels.segment_sum import kernel

    return kernel.forward(x, index, ptr)
