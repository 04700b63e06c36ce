"""Runs the gated MLP of AngleUpdate over cache-sized blocks of rows. No maths in this file."""

from torch import Tensor

from fastchgnet_kernels.gated_message import reference
from fastchgnet_kernels.gated_message.rows import Kept, Rows, row_blocks
from fastchgnet_kernels.gated_message.scratch import Scratch, fresh
from fastchgnet_kernels.gated_message.weights import GatedWeights


def forward(rows: Rows, weights: GatedWeights, *, out: Tensor, keep: bool) -> Kept | None:
    """Adds p of every message to `out` (messages, D)."""
    kept: Kept | None = [] if keep else None
    new = fresh if keep else Scratch()
    for lo, hi in row_blocks(out.shape[0]):
        p, saved = reference.forward(rows.block(lo, hi), weights, new)
        out[lo:hi].add_(p)
        if kept is not None:
            kept.append((p, saved))
    return kept


def backward(
    grad_out: Tensor, rows: Rows, weights: GatedWeights, *, grad_x: Tensor | None, kept: Kept | None
) -> Tensor:
    """Gradient of the table (T, 2D); the gradient of `rows.dense.x` is added to `grad_x`, which may be `grad_out`."""
    scratch = Scratch()
    grad_z = grad_out.new_empty(grad_out.shape[0], rows.table.shape[1])
    for block, (lo, hi) in enumerate(row_blocks(grad_out.shape[0])):
        saved = reference.forward(rows.block(lo, hi), weights, scratch)[1] if kept is None else kept[block][1]
        reference.backward(grad_out[lo:hi], saved, weights, scratch, grad_z[lo:hi])
        rows.block_backward(grad_z, lo, hi, grad_x)
    return rows.grad_table(grad_z)
