"""Picks who computes the gated MLP of AngleUpdate: Triton, or plain torch over cache-sized blocks of rows. No maths."""

from torch import Tensor

from fastchgnet_kernels._launch import runs_kernels
from fastchgnet_kernels.gated_message import reference
from fastchgnet_kernels.gated_message.rows import Kept, Rows, row_blocks
from fastchgnet_kernels.gated_message.scratch import Scratch, thread_scratch
from fastchgnet_kernels.gated_message.weights import GatedWeights


def forward(rows: Rows, weights: GatedWeights, *, out: Tensor, keep: Scratch | None) -> Kept | None:
    """Adds p of every message to `out` (messages, D)."""
    if runs_kernels(out.device):
        from fastchgnet_kernels.gated_update import kernel

        kernel.forward(rows, weights, out, rows.tile(weights))
        return None
    kept: Kept | None = None if keep is None else []
    temporary = thread_scratch()
    for block, (lo, hi) in enumerate(row_blocks(out.shape[0], rows.block_rows(weights, summed=False))):
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
    if runs_kernels(grad_out.device):
        from fastchgnet_kernels.gated_update import kernel

        grad_z = kernel.backward(grad_out, rows, weights, rows.tile(weights))
        rows.block_backward(grad_z, 0, grad_z.shape[0], grad_x)
        return rows.grad_table(grad_z)
    temporary = thread_scratch()
    grad_z = temporary("grad z", grad_out.shape[0], rows.table.shape[1], grad_out)
    for block, (lo, hi) in enumerate(row_blocks(grad_out.shape[0], rows.block_rows(weights, summed=False))):
        saved = reference.forward(rows.block(lo, hi), weights, temporary) if kept is None else kept[block]
        reference.backward(grad_out[lo:hi], saved, weights, temporary, grad_z[lo:hi])
        rows.block_backward(grad_z, lo, hi, grad_x)
    return rows.grad_table(grad_z)
