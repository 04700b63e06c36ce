"""Runs message and update over cache-sized blocks of the same rows. No maths but the weights' in this file."""

from typing import NamedTuple

import torch
from torch import Tensor

from fastchgnet_kernels import segment_sum
from fastchgnet_kernels.gated_message import reference
from fastchgnet_kernels.gated_message.function import MessageGradients, Segments, Weighting
from fastchgnet_kernels.gated_message.rows import Rows, segment_blocks
from fastchgnet_kernels.gated_message.scratch import Scratch, thread_scratch
from fastchgnet_kernels.gated_message.weights import GatedWeights


class _Saved(NamedTuple):
    message: reference.Saved
    update: reference.Saved


Kept = list[_Saved]  # per block


def forward(
    rows: Rows,
    message: GatedWeights,
    update: GatedWeights,
    weighting: Weighting,
    segments: Segments,
    *,
    out: Tensor,
    keep: Scratch | None,
) -> tuple[Tensor, Kept | None]:
    """Σ_{m in s} p(z_message)_m ⊙ w_m, (segments, D); adds p(z_update) of every message to `out` (messages, D).

    With `keep`, what the backward needs is left in that memory and returned; without, the backward recomputes it.
    """
    kept: Kept | None = None if keep is None else []
    temporary = thread_scratch()
    width = rows.table.shape[1] // 2
    summed = rows.table.new_zeros(segments.ptr.shape[0] - 1, width // 2)
    order = weighting.incidence.ptr  # 0, 1, 2 …: the messages of a block are summed in the order they lie in
    for block, (first, last, lo, hi) in enumerate(segment_blocks(segments.ptr)):
        z = rows.block(lo, hi)
        new = temporary if keep is None else keep.under("message", block)
        saved = reference.forward(z[:, :width], message, new)
        w = weighting.block(lo, hi, temporary)
        summed[first:last] = segment_sum.forward(w.mul_(saved.p), order[: hi - lo], segments.ptr[first : last + 1] - lo)
        new = temporary if keep is None else keep.under("update", block)
        saved_update = reference.forward(z[:, width:], update, new)
        out[lo:hi].add_(saved_update.p)
        if kept is not None:
            kept.append(_Saved(saved, saved_update))
    return summed, kept


def backward(
    grad_summed: Tensor,
    grad_updated: Tensor,
    rows: Rows,
    message: GatedWeights,
    update: GatedWeights,
    weighting: Weighting,
    segments: Segments,
    *,
    grad_x: Tensor,
    kept: Kept | None,
) -> MessageGradients:
    """Gradients of table (T, 4D) and weights; that of `rows.dense.x` is added to `grad_x`, even to `grad_updated`."""
    n, d = grad_updated.shape
    temporary = thread_scratch()
    grad_z = temporary("grad z", n, rows.table.shape[1], grad_summed)
    grad_w = temporary("grad w", n, d, grad_summed)
    for block, (_, _, lo, hi) in enumerate(segment_blocks(segments.ptr)):
        z = rows.table[:0] if kept is not None else rows.block(lo, hi)
        saved = kept[block].message if kept is not None else reference.forward(z[:, : 2 * d], message, temporary)
        grad = temporary("grad", hi - lo, d, grad_summed)
        torch.index_select(grad_summed, 0, segments.of_message[lo:hi], out=grad)
        torch.mul(grad, saved.p, out=grad_w[lo:hi])
        grad.mul_(weighting.block(lo, hi, temporary))
        reference.backward(grad, saved, message, temporary, grad_z[lo:hi, : 2 * d])
        # Only now, as activations that are computed again lie in the same memory.
        saved = kept[block].update if kept is not None else reference.forward(z[:, 2 * d :], update, temporary)
        reference.backward(grad_updated[lo:hi], saved, update, temporary, grad_z[lo:hi, 2 * d :])
        rows.block_backward(grad_z, lo, hi, grad_x)
    return MessageGradients(
        rows.grad_table(grad_z),
        segment_sum.forward(grad_w, weighting.incidence.messages, weighting.incidence.messages_ptr),
    )
