"""The segment sum in Triton: rows are added in the order of their entries, without atomics. The maths: `__init__`."""

import triton
import triton.language as tl
from torch import Tensor

from fastchgnet_kernels._launch import options

SEGMENTS = 8  # per program
WARPS = 4


@triton.jit(do_not_specialize=["n_segments"])
def segment_sum_kernel(
    x,  # (rows, D)
    index,  # (entries,)
    ptr,  # (segments + 1,)
    out,  # (segments, D)
    n_segments,
    D: tl.constexpr, D_PADDED: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    """This program sums SEGMENTS segments side by side, an entry of each at a time."""
    segment = tl.program_id(0) * SEGMENTS + tl.arange(0, SEGMENTS)
    inside = segment < n_segments
    start = tl.load(ptr + segment, inside, 0)
    length = tl.load(ptr + segment + 1, inside, 0) - start
    column = tl.arange(0, D_PADDED)
    filled = column[None, :] < D
    total = tl.zeros((SEGMENTS, D_PADDED), out.dtype.element_ty)
    for entry in range(0, tl.max(length, 0)):
        live = entry < length
        row = tl.load(index + start + entry, live, 0).to(tl.int64)
        total += tl.load(x + row[:, None] * D + column[None, :], live[:, None] & filled, 0.0)
    tl.store(out + segment[:, None].to(tl.int64) * D + column[None, :], total, inside[:, None] & filled)


def forward(x: Tensor, index: Tensor, ptr: Tensor) -> Tensor:
    """out[s] = Σ_{j = ptr[s]}^{ptr[s+1]-1} x[index[j]], (segments, D)."""
    n_segments, d = ptr.shape[0] - 1, x.shape[1]
    out = x.new_empty(n_segments, d)
    if out.numel():
        segment_sum_kernel[(triton.cdiv(n_segments, SEGMENTS),)](
            x, index, ptr, out, n_segments,
            D=d, D_PADDED=triton.next_power_of_2(d), SEGMENTS=SEGMENTS, **options(WARPS),
        )  # fmt: skip
    return out
