"""The gated update in Triton: gather, MLP and addition in one pass, and its backward. The maths: `__init__`."""

import triton
import triton.language as tl
from torch import Tensor

from fastchgnet_kernels._launch import Tile
from fastchgnet_kernels.gated_message.kernel import mlp, shape
from fastchgnet_kernels.gated_message.rows import Rows
from fastchgnet_kernels.gated_message.tiles import gate, gate_grad, normed, normed_grad, pre_activation
from fastchgnet_kernels.gated_message.weights import GatedWeights


@triton.jit
def update_forward_kernel(
    table, rows, x, x_weight, second, second_bias, scale, shift,  # the MLP, as in `tiles`
    out,  # (messages, D), added to
    n_messages,
    K: tl.constexpr, D: tl.constexpr, F: tl.constexpr, F_PADDED: tl.constexpr,
    LAYERS: tl.constexpr, NORM: tl.constexpr, SPLIT: tl.constexpr, NATIVE: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """This program updates ROWS messages."""
    message = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = message < n_messages
    z = pre_activation(table, rows, x, x_weight, message, live, 0, K, D, F, F_PADDED, SPLIT)
    a, _, _ = normed(z, second, second_bias, scale, shift, 0, D, LAYERS, NORM, SPLIT, NATIVE)
    tl.debug_barrier()  # as in `gated_message.kernel`
    z = pre_activation(table, rows, x, x_weight, message, live, 1, K, D, F, F_PADDED, SPLIT)
    b, _, _ = normed(z, second, second_bias, scale, shift, 1, D, LAYERS, NORM, SPLIT, NATIVE)
    p, _, _ = gate(a, b, NATIVE)
    at = out + message[:, None].to(tl.int64) * D + tl.arange(0, D)[None, :]
    tl.store(at, tl.load(at, live[:, None], 0.0) + p, live[:, None])


@triton.jit
def update_backward_kernel(
    table, rows, x, x_weight, second, second_bias, scale, shift,
    grad_out,  # (messages, D)
    grad_z,  # (messages, 2D)
    n_messages,
    K: tl.constexpr, D: tl.constexpr, F: tl.constexpr, F_PADDED: tl.constexpr,
    LAYERS: tl.constexpr, NORM: tl.constexpr, SPLIT: tl.constexpr, NATIVE: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """This program computes the gradients of ROWS messages."""
    message = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = message < n_messages
    column = tl.arange(0, D)
    z = pre_activation(table, rows, x, x_weight, message, live, 0, K, D, F, F_PADDED, SPLIT)
    a, y_core, r_core = normed(z, second, second_bias, scale, shift, 0, D, LAYERS, NORM, SPLIT, NATIVE)
    tl.debug_barrier()
    z = pre_activation(table, rows, x, x_weight, message, live, 1, K, D, F, F_PADDED, SPLIT)
    b, y_gate, r_gate = normed(z, second, second_bias, scale, shift, 1, D, LAYERS, NORM, SPLIT, NATIVE)
    p, sigma_a, sigma_b = gate(a, b, NATIVE)

    grad = tl.load(grad_out + message[:, None].to(tl.int64) * D + column[None, :], live[:, None], 0.0)
    grad_a, grad_b = gate_grad(grad, p, sigma_a, sigma_b)
    at = grad_z + message[:, None].to(tl.int64) * (2 * D) + column[None, :]
    tl.debug_barrier()
    z = pre_activation(table, rows, x, x_weight, message, live, 0, K, D, F, F_PADDED, SPLIT)
    core = normed_grad(grad_a, z, y_core, r_core, second, scale, 0, D, LAYERS, NORM, SPLIT, NATIVE)
    tl.store(at, core, live[:, None])
    tl.debug_barrier()
    z = pre_activation(table, rows, x, x_weight, message, live, 1, K, D, F, F_PADDED, SPLIT)
    other = normed_grad(grad_b, z, y_gate, r_gate, second, scale, 1, D, LAYERS, NORM, SPLIT, NATIVE)
    tl.store(at + D, other, live[:, None])


def forward(rows: Rows, weights: GatedWeights, out: Tensor, tile: Tile) -> None:
    """Adds p of every message to `out` (messages, D)."""
    n = out.shape[0]
    if n:
        update_forward_kernel[(triton.cdiv(n, tile.rows),)](
            *mlp(rows, weights), out, n,
            **shape(rows, weights), ROWS=tile.rows, num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip


def backward(grad_out: Tensor, rows: Rows, weights: GatedWeights, tile: Tile) -> Tensor:
    """grad_z (messages, 2D)."""
    n = grad_out.shape[0]
    grad_z = grad_out.new_empty(n, rows.table.shape[1])
    if n:
        update_backward_kernel[(triton.cdiv(n, tile.rows),)](
            *mlp(rows, weights), grad_out, grad_z, n,
            **shape(rows, weights), ROWS=tile.rows, num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return grad_z
