"""Runs the gated MLP of AngleUpdate over cache-sized blocks of rows. No maths in this file."""

from torch import Tensor

from fastchgnet_kernels.gated_message import reference
from fastchgnet_kernels.gated_message.rows import Kept, Rows, row_blocks
from fastchgnet_kernels.gated_message.scratch import Scratch, thread_scratch
from fastchgnet_kernels.gated_message.weights import GatedWeights


def forward(rows: Rows, weights: GatedWeights, *, out: Tensor, keep: Scratch | None) -> Kept | None:
    """Adds p of every message to `out` (messages, D)."""
    kept: Kept | None = None if keep is None else []
    temporary = thread_scratch()
    for block, (lo, hi) in enumerate(row_blocks(out.shape[0])):
        new = temporary if keep is None else keep.under(block)
        saved = reference.forward(rows.block(lo, hi), weights, new)
        out[lo:hi].add_(saved.p)
        if kept is not None:
            kept.append(saved)
    return kept


def backward(
    grad_out: Tensor, rows: Rows, weights: GatedWeights, *, grad_x: Tensor | None, kept: Kept | None
) -> Tensor:
    """Gradient of the table (T, 2D); the gradient of `rows.dense.x` is added to `grad_x`, which may be `grad_out`."""
    temporary = thread_scratch()
    grad_z = temporary("grad z", grad_out.shape[0], rows.table.shape[1], grad_out)
    for block, (lo, hi) in enumerate(row_blocks(grad_out.shape[0])):
        saved = reference.forward(rows.block(lo, hi), weights, temporary) if kept is None else kept[block]
        reference.backward(grad_out[lo:hi], saved, weights, temporary, grad_z[lo:hi])
        rows.block_backward(grad_z, lo, hi, grad_x)
    return rows.grad_table(grad_z)
