"""The gated update in Triton: gather, MLP and addition in one pass, and its backward. The maths: `__init__`."""

import triton
import triton.language as tl
from torch import Tensor

from fastchgnet_kernels._launch import Tile, options
from fastchgnet_kernels.gated_message.kernel import mlp, shape
from fastchgnet_kernels.gated_message.rows import Rows
from fastchgnet_kernels.gated_message.tiles import gated, gated_grad
from fastchgnet_kernels.gated_message.weights import GatedWeights


@triton.jit(do_not_specialize=["n_messages"])
def update_forward_kernel(
    table, rows, x, x_weight, second, second_bias, scale, shift,  # the MLP, as in `tiles`
    out,  # (messages, D), added to
    n_messages,
    K: tl.constexpr, D: tl.constexpr, F: tl.constexpr, F_PADDED: tl.constexpr,
    LAYERS: tl.constexpr, NORM: tl.constexpr, PARTS: tl.constexpr, NATIVE: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """This program updates ROWS messages."""
    message = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = message < n_messages
    p, _, _, _, _, _, _ = gated(
        table, rows, x, x_weight, second, second_bias, scale, shift, message, live,
        K, D, F, F_PADDED, LAYERS, NORM, PARTS, NATIVE,
    )  # fmt: skip
    at = out + message[:, None].to(tl.int64) * D + tl.arange(0, D)[None, :]
    tl.store(at, tl.load(at, live[:, None], 0.0) + p, live[:, None])


@triton.jit(do_not_specialize=["n_messages"])
def update_backward_kernel(
    table, rows, x, x_weight, second, second_bias, scale, shift,
    grad_out,  # (messages, D)
    grad_z,  # (messages, 2D)
    n_messages,
    K: tl.constexpr, D: tl.constexpr, F: tl.constexpr, F_PADDED: tl.constexpr,
    LAYERS: tl.constexpr, NORM: tl.constexpr, PARTS: tl.constexpr, NATIVE: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """This program computes the gradients of ROWS messages."""
    message = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = message < n_messages
    p, sigma_a, sigma_b, y_core, r_core, y_gate, r_gate = gated(
        table, rows, x, x_weight, second, second_bias, scale, shift, message, live,
        K, D, F, F_PADDED, LAYERS, NORM, PARTS, NATIVE,
    )  # fmt: skip
    grad = tl.load(grad_out + message[:, None].to(tl.int64) * D + tl.arange(0, D)[None, :], live[:, None], 0.0)
    gated_grad(
        grad, p, sigma_a, sigma_b, y_core, r_core, y_gate, r_gate,
        table, rows, x, x_weight, second, scale, message, live, grad_z,
        K, D, F, F_PADDED, LAYERS, NORM, PARTS, NATIVE,
    )  # fmt: skip


def forward(rows: Rows, weights: GatedWeights, out: Tensor, tile: Tile) -> None:
    """Adds p of every message to `out` (messages, D)."""
    n = out.shape[0]
    if n:
        update_forward_kernel[(triton.cdiv(n, tile.rows),)](
            *mlp(rows, weights), out, n,
            **shape(rows, weights), ROWS=tile.rows, **options(tile.warps, tile.stages),
        )  # fmt: skip


def backward(grad_out: Tensor, rows: Rows, weights: GatedWeights, tile: Tile) -> Tensor:
    """grad_z (messages, 2D)."""
    n = grad_out.shape[0]
    grad_z = grad_out.new_empty(n, rows.table.shape[1])
    if n:
        update_backward_kernel[(triton.cdiv(n, tile.rows),)](
            *mlp(rows, weights), grad_out, grad_z, n,
            **shape(rows, weights), ROWS=tile.rows, **options(tile.warps, tile.stages),
        )  # fmt: skip
    return grad_z
