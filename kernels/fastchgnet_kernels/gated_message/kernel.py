"""The gated message in Triton: gather, MLP, weights and segment sum in one pass; its backward. The maths: `__init__`.

A program owns SEGMENTS whole segments and runs over their messages in tiles of ROWS, so that a sum is never split:
no atomics, and the same order of summation every time. It sums a tile with a matrix of ones, onto SLOTS rows, which is
what a matrix product takes at least.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastchgnet_kernels._launch import INTERPRETED, Tile, options
from fastchgnet_kernels._tiles import sum_of_chosen
from fastchgnet_kernels.gated_message.rows import Rows
from fastchgnet_kernels.gated_message.tiles import gated, gated_grad
from fastchgnet_kernels.gated_message.weights import GatedWeights

SLOTS: tl.constexpr = tl.constexpr(16)


@triton.jit(do_not_specialize=["n_segments"])
def message_forward_kernel(
    table, rows, x, x_weight, second, second_bias, scale, shift,  # the MLP, as in `tiles`
    weight, weight_row,  # (W, D), (messages,)
    ptr, segment,  # (segments + 1,), (messages,)
    out,  # (segments, D)
    n_segments,
    K: tl.constexpr, D: tl.constexpr, F: tl.constexpr, F_PADDED: tl.constexpr,
    LAYERS: tl.constexpr, NORM: tl.constexpr, PARTS: tl.constexpr, NATIVE: tl.constexpr,
    SEGMENTS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """This program sums the messages of SEGMENTS segments."""
    first = tl.program_id(0) * SEGMENTS
    start, stop = tl.load(ptr + first), tl.load(ptr + tl.minimum(first + SEGMENTS, n_segments))
    column, slot = tl.arange(0, D), tl.arange(0, SLOTS)
    total = tl.zeros((SLOTS, D), out.dtype.element_ty)
    for begin in range(start, stop, ROWS):
        message = begin + tl.arange(0, ROWS)
        live = message < stop
        p, _, _, _, _, _, _ = gated(
            table, rows, x, x_weight, second, second_bias, scale, shift, message, live,
            K, D, F, F_PADDED, LAYERS, NORM, PARTS, NATIVE,
        )  # fmt: skip
        row = tl.load(weight_row + message, live, 0).to(tl.int64)
        p *= tl.load(weight + row[:, None] * D + column[None, :], live[:, None], 0.0)
        where = tl.load(segment + message, live, -1) - first
        ones = (where[None, :] == slot[:, None]).to(p.dtype)
        total = sum_of_chosen(ones, p, total, PARTS)
    mine = (slot < SEGMENTS) & (first + slot < n_segments)
    tl.store(out + (first + slot)[:, None].to(tl.int64) * D + column[None, :], total, mine[:, None])


@triton.jit(do_not_specialize=["n_messages"])
def message_backward_kernel(
    table, rows, x, x_weight, second, second_bias, scale, shift,
    weight, weight_row, segment,
    grad_out,  # (segments, D)
    grad_z,  # (messages, 2D)
    grad_weight,  # (messages, D)
    n_messages,
    K: tl.constexpr, D: tl.constexpr, F: tl.constexpr, F_PADDED: tl.constexpr,
    LAYERS: tl.constexpr, NORM: tl.constexpr, PARTS: tl.constexpr, NATIVE: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """This program computes the gradients of ROWS messages."""
    message = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = message < n_messages
    column = tl.arange(0, D)
    p, sigma_a, sigma_b, y_core, r_core, y_gate, r_gate = gated(
        table, rows, x, x_weight, second, second_bias, scale, shift, message, live,
        K, D, F, F_PADDED, LAYERS, NORM, PARTS, NATIVE,
    )  # fmt: skip
    owner = tl.load(segment + message, live, 0).to(tl.int64)
    grad = tl.load(grad_out + owner[:, None] * D + column[None, :], live[:, None], 0.0)
    at = message[:, None].to(tl.int64) * D + column[None, :]
    tl.store(grad_weight + at, grad * p, live[:, None])
    row = tl.load(weight_row + message, live, 0).to(tl.int64)
    grad *= tl.load(weight + row[:, None] * D + column[None, :], live[:, None], 0.0)
    gated_grad(
        grad, p, sigma_a, sigma_b, y_core, r_core, y_gate, r_gate,
        table, rows, x, x_weight, second, scale, message, live, grad_z,
        K, D, F, F_PADDED, LAYERS, NORM, PARTS, NATIVE,
    )  # fmt: skip


def forward(
    rows: Rows, weights: GatedWeights, weight: Tensor, weight_rows: Tensor, ptr: Tensor, segment: Tensor, tile: Tile
) -> Tensor:
    """out[s] = Σ_{m in segment s} p_m ⊙ weight[weight_rows[m]], (segments, D)."""
    n_segments = ptr.shape[0] - 1
    out = rows.table.new_empty(n_segments, rows.table.shape[1] // 2)
    if n_segments:
        message_forward_kernel[(triton.cdiv(n_segments, tile.segments),)](
            *mlp(rows, weights), weight, weight_rows, ptr, segment, out, n_segments,
            **shape(rows, weights), SEGMENTS=tile.segments, ROWS=tile.rows,
            **options(tile.warps, tile.stages),
        )  # fmt: skip
    return out


def backward(
    grad_out: Tensor,
    rows: Rows,
    weights: GatedWeights,
    weight: Tensor,
    weight_rows: Tensor,
    segment: Tensor,
    tile: Tile,
) -> tuple[Tensor, Tensor]:
    """grad_z (messages, 2D) and the gradient of every message's weight (messages, D)."""
    n, d = segment.shape[0], grad_out.shape[1]
    grad_z, grad_weight = grad_out.new_empty(n, 2 * d), grad_out.new_empty(n, d)
    if n:
        message_backward_kernel[(triton.cdiv(n, tile.rows),)](
            *mlp(rows, weights), weight, weight_rows, segment, grad_out, grad_z, grad_weight, n,
            **shape(rows, weights), ROWS=tile.rows, **options(tile.warps, tile.stages),
        )  # fmt: skip
    return grad_z, grad_weight


def mlp(rows: Rows, weights: GatedWeights) -> list[Tensor]:
    """The first arguments of a kernel; the table stands in for what there is not, and is not read."""
    dense = rows.dense
    given = (None, None) if dense is None else (dense.x, dense.weight)
    return [rows.table, rows.incidence.rows, *(rows.table if x is None else x for x in (*given, *weights))]


def shape(rows: Rows, weights: GatedWeights) -> dict[str, Any]:
    """What a kernel is compiled for."""
    table, n_features = rows.table, 0 if rows.dense is None else rows.dense.x.shape[1]
    return {
        "K": rows.gathered,
        "D": table.shape[1] // 2,
        "F": n_features,
        "F_PADDED": max(16, triton.next_power_of_2(n_features)),
        "LAYERS": 1 if weights.second is None else 2,
        "NORM": weights.scale is not None,
        "PARTS": 0 if table.dtype == torch.float64 else 1 if rows.tf32 else 2,
        "NATIVE": table.dtype == torch.float32 and not INTERPRETED,
    }
