"""Sums of gathered rows over CSR segments, in plain torch: the definition of the op."""

import torch
from torch import Tensor


def forward(x: Tensor, index: Tensor, ptr: Tensor) -> Tensor:
    """out[s] = Σ_{j = ptr[s]}^{ptr[s+1]-1} x[index[j]].

    x (rows, D), index (entries,), ptr (segments + 1,) with ptr[0] = 0 and ptr[-1] = entries → out (segments, D).
    """
    if x.shape[0] == 0 or index.shape[0] == 0 or ptr.shape[0] <= 1:
        return x[:0].sum(0).repeat(max(ptr.shape[0] - 1, 0), 1)  # sums of nothing, as autograd wants them
    # embedding_bag gathers and adds in one pass: on a CPU several times faster than index_select and index_add_
    # (python -m benchmarks.engine), and its order of summation is fixed.
    # In float64, weights make it faster: with them it runs a plain loop, without them a BLAS call for every row.
    ones = x.new_ones(index.shape[0]) if x.is_cpu and x.dtype == torch.float64 else None
    return torch.embedding_bag(x, index, ptr, mode=0, per_sample_weights=ones, include_last_offset=True)[0]


def backward(grad_out: Tensor, index: Tensor, ptr: Tensor, n_rows: int) -> Tensor:
    """grad_x[i] = Σ_{s, j in segment s, index[j] = i} grad_out[s].

    A kernel that knows the transposed incidence computes this with `forward`; this definition does not need it.
    """
    segment = torch.repeat_interleave(ptr.diff().long(), output_size=index.shape[0])
    return grad_out.new_zeros(n_rows, grad_out.shape[1]).index_add_(0, index.long(), grad_out[segment])
