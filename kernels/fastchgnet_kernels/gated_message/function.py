"""Picks who computes a gated message: Triton, or plain torch over blocks of rows small enough to stay in cache.

In plain torch every block is gathered, pushed through the MLP and reduced before the next one starts, so a message is
never written to memory. The backward recomputes a block unless the caller asked `forward` to keep it. No maths but the
weights' in this file.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fastchgnet_kernels import segment_sum
from fastchgnet_kernels._launch import runs_kernels
from fastchgnet_kernels.gated_message import reference
from fastchgnet_kernels.gated_message.rows import Kept, Rows, segment_blocks
from fastchgnet_kernels.gated_message.scratch import Scratch, thread_scratch
from fastchgnet_kernels.gated_message.weights import GatedWeights, Incidence


class Weighting(NamedTuple):
    """Message m is multiplied by row `incidence.rows[m]` of `table` (W, D)."""

    table: Tensor
    incidence: Incidence  # one table row a message

    def block(self, lo: int, hi: int, new: Scratch) -> Tensor:
        """Weights of the messages lo:hi, (hi - lo, D)."""
        out = new("weight", hi - lo, self.table.shape[1], self.table)
        return torch.index_select(self.table, 0, self.incidence.rows[lo:hi], out=out)


class Segments(NamedTuple):
    """Consecutive messages are summed: segment s gets the messages `ptr[s]:ptr[s+1]`."""

    ptr: Tensor  # (segments + 1,)
    of_message: Tensor  # (messages,)


def forward(
    rows: Rows, weights: GatedWeights, weighting: Weighting, segments: Segments, *, keep: Scratch | None
) -> tuple[Tensor, Kept | None]:
    """out[s] = Σ_{m in segment s} p_m ⊙ w[m], (segments, D).

    With `keep`, what the backward needs is left in that memory and returned; without, and by Triton, the backward
    recomputes it.
    """
    if runs_kernels(rows.table.device):
        from fastchgnet_kernels.gated_message import kernel

        weight, weight_rows = weighting.table, weighting.incidence.rows
        tile = rows.tile(weights, segments.ptr.shape[0] - 1, weight.shape[0])
        return kernel.forward(rows, weights, weight, weight_rows, segments.ptr, segments.of_message, tile), None
    kept: Kept | None = None if keep is None else []
    temporary = thread_scratch()
    out = rows.table.new_zeros(segments.ptr.shape[0] - 1, rows.table.shape[1] // 2)
    order = weighting.incidence.ptr  # 0, 1, 2 …: the messages of a block are summed in the order they lie in
    size = rows.block_rows(weights, summed=True)
    for block, (first, last, lo, hi) in enumerate(segment_blocks(segments.ptr, size)):
        new = temporary if keep is None else keep.under(block)
        saved = reference.forward(rows.block(lo, hi), weights, new)
        w = weighting.block(lo, hi, temporary)
        ptr = segments.ptr[first : last + 1] - lo
        out[first:last] = segment_sum.forward(w.mul_(saved.p), order[: hi - lo], ptr)
        if kept is not None:
            kept.append(saved)
    return out, kept


class MessageGradients(NamedTuple):
    table: Tensor  # (T, 2D)
    weight: Tensor  # (W, D)


def backward(
    grad_out: Tensor,
    rows: Rows,
    weights: GatedWeights,
    weighting: Weighting,
    segments: Segments,
    *,
    grad_x: Tensor | None,
    kept: Kept | None,
) -> MessageGradients:
    """With g = grad_out[segment of m]: grad_w = Σ g p_m and grad_p = g ⊙ w; then back through the MLP."""
    compute = _by_kernel if runs_kernels(rows.table.device) else _by_blocks
    grad_z, grad_w = compute(grad_out, rows, weights, weighting, segments, grad_x, kept)
    users = weighting.incidence  # both gathers are transposed
    grad_weight = segment_sum.forward(grad_w, users.messages, users.messages_ptr)
    del grad_w  # the largest but one of all arrays here, not to be there together with the next
    return MessageGradients(rows.grad_table(grad_z), grad_weight)


def _by_kernel(
    grad_out: Tensor,
    rows: Rows,
    weights: GatedWeights,
    weighting: Weighting,
    segments: Segments,
    grad_x: Tensor | None,
    kept: Kept | None,
) -> tuple[Tensor, Tensor]:
    """grad_z (messages, 2D) and the gradient of every message's weight (messages, D)."""
    from fastchgnet_kernels.gated_message import kernel

    del kept  # kernels keep nothing
    weight, weight_rows = weighting.table, weighting.incidence.rows
    tile = rows.tile(weights, segments.ptr.shape[0] - 1, weight.shape[0])
    grad_z, grad_w = kernel.backward(grad_out, rows, weights, weight, weight_rows, segments.of_message, tile)
    rows.block_backward(grad_z, 0, grad_z.shape[0], grad_x)
    return grad_z, grad_w


def _by_blocks(
    grad_out: Tensor,
    rows: Rows,
    weights: GatedWeights,
    weighting: Weighting,
    segments: Segments,
    grad_x: Tensor | None,
    kept: Kept | None,
) -> tuple[Tensor, Tensor]:
    """The same."""
    n, d = segments.of_message.shape[0], grad_out.shape[1]
    temporary = thread_scratch()
    grad_z = temporary("grad z", n, rows.table.shape[1], grad_out)
    grad_w = temporary("grad w", n, d, grad_out)
    size = rows.block_rows(weights, summed=True)
    for block, (_, _, lo, hi) in enumerate(segment_blocks(segments.ptr, size)):
        saved = reference.forward(rows.block(lo, hi), weights, temporary) if kept is None else kept[block]
        grad = temporary("grad", hi - lo, d, grad_out)
        torch.index_select(grad_out, 0, segments.of_message[lo:hi], out=grad)
        torch.mul(grad, saved.p, out=grad_w[lo:hi])
        grad.mul_(weighting.block(lo, hi, temporary))
        reference.backward(grad, saved, weights, temporary, grad_z[lo:hi])
        rows.block_backward(grad_z, lo, hi, grad_x)
    return grad_z, grad_w
