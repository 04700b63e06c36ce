"""The gated MLP on a tile of messages, for the kernels of `gated_message` and `gated_update`.

A half is core or gate. Each takes z → y = silu(z) W₂ + b₂ (two layers) or y = z (one) → LN(y); `half` says which
columns. Backward is directly below forward and recomputes it.
"""

import triton
import triton.language as tl

from fastchgnet_kernels._tiles import product, sigmoid, silu_grad, standardise, standardise_grad


@triton.jit
def pre_activation(
    table, rows, x, x_weight, message, live, half,
    K: tl.constexpr, D: tl.constexpr, F: tl.constexpr, F_PADDED: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """z = Σ_k table[rows[m, k]] (+ x_m W) of one half, (messages of the tile, D)."""
    column = half * D + tl.arange(0, D)
    row = tl.load(rows + message * K, live, 0).to(tl.int64)
    z = tl.load(table + row[:, None] * (2 * D) + column[None, :], live[:, None], 0.0)
    for k in tl.static_range(1, K):
        row = tl.load(rows + message * K + k, live, 0).to(tl.int64)
        z += tl.load(table + row[:, None] * (2 * D) + column[None, :], live[:, None], 0.0)
    if F > 0:
        feature = tl.arange(0, F_PADDED)
        inside = feature < F
        features = tl.load(x + message[:, None] * F + feature[None, :], live[:, None] & inside[None, :], 0.0)
        weight = tl.load(x_weight + feature[:, None] * (2 * D) + column[None, :], inside[:, None], 0.0)
        z = product(features, weight, z, PARTS)
    return z


@triton.jit
def normed(
    z, second, second_bias, scale, shift, half,
    D: tl.constexpr, LAYERS: tl.constexpr, NORM: tl.constexpr, PARTS: tl.constexpr, NATIVE: tl.constexpr,
):  # fmt: skip
    """LN(y) of one half (rows, D), ŷ and rstd (rows,); without a norm ŷ is y, and rstd of no meaning."""
    column = tl.arange(0, D)
    y = z
    if LAYERS == 2:
        weight = tl.load(second + half * D * D + column[:, None] * D + column[None, :])
        h = z * sigmoid(z, NATIVE)
        bias = tl.load(second_bias + half * D + column)[None, :]
        y = product(h, weight, tl.broadcast_to(bias, z.shape), PARTS)
    rstd = tl.sum(z, 1)
    out = y
    if NORM:
        y, rstd = standardise(y, D)
        out = y * tl.load(scale + half * D + column)[None, :] + tl.load(shift + half * D + column)[None, :]
    return out, y, rstd


@triton.jit
def normed_grad(
    grad, z, y, rstd, second, scale, half,
    D: tl.constexpr, LAYERS: tl.constexpr, NORM: tl.constexpr, PARTS: tl.constexpr, NATIVE: tl.constexpr,
):  # fmt: skip
    """grad_z of one half (rows, D), from the gradient of LN(y)."""
    column = tl.arange(0, D)
    if NORM:
        grad = standardise_grad(grad * tl.load(scale + half * D + column)[None, :], y, rstd, D)
    if LAYERS == 2:
        transposed = tl.load(second + half * D * D + column[None, :] * D + column[:, None])
        grad = product(grad, transposed, tl.zeros_like(z), PARTS)
        grad = grad * silu_grad(z, sigmoid(z, NATIVE))
    return grad


@triton.jit
def gated(
    table, rows, x, x_weight, second, second_bias, scale, shift, message, live,
    K: tl.constexpr, D: tl.constexpr, F: tl.constexpr, F_PADDED: tl.constexpr,
    LAYERS: tl.constexpr, NORM: tl.constexpr, PARTS: tl.constexpr, NATIVE: tl.constexpr,
):  # fmt: skip
    """p = silu(a) σ(b), a and b the LN(y) of core and gate; σ(a), σ(b), and ŷ and rstd of either half."""
    z = pre_activation(table, rows, x, x_weight, message, live, 0, K, D, F, F_PADDED, PARTS)
    a, y_core, r_core = normed(z, second, second_bias, scale, shift, 0, D, LAYERS, NORM, PARTS, NATIVE)
    tl.debug_barrier()  # or the loads of this half are begun during the other one, and registers run out
    z = pre_activation(table, rows, x, x_weight, message, live, 1, K, D, F, F_PADDED, PARTS)
    b, y_gate, r_gate = normed(z, second, second_bias, scale, shift, 1, D, LAYERS, NORM, PARTS, NATIVE)
    sigma_a, sigma_b = sigmoid(a, NATIVE), sigmoid(b, NATIVE)
    return a * sigma_a * sigma_b, sigma_a, sigma_b, y_core, r_core, y_gate, r_gate


@triton.jit
def gated_grad(
    grad, p, sigma_a, sigma_b, y_core, r_core, y_gate, r_gate,
    table, rows, x, x_weight, second, scale, message, live,
    grad_z,  # (messages, 2D), written to
    K: tl.constexpr, D: tl.constexpr, F: tl.constexpr, F_PADDED: tl.constexpr,
    LAYERS: tl.constexpr, NORM: tl.constexpr, PARTS: tl.constexpr, NATIVE: tl.constexpr,
):  # fmt: skip
    """From the gradient of p: ∂p/∂a = σ(b) silu'(a) = p + σ(a) (σ(b) - p), ∂p/∂b = p (1 - σ(b))."""
    grad_a, grad_b = grad * (p + sigma_a * (sigma_b - p)), grad * p * (1.0 - sigma_b)
    at = grad_z + message[:, None].to(tl.int64) * (2 * D) + tl.arange(0, D)[None, :]
    tl.debug_barrier()
    z = pre_activation(table, rows, x, x_weight, message, live, 0, K, D, F, F_PADDED, PARTS)
    core = normed_grad(grad_a, z, y_core, r_core, second, scale, 0, D, LAYERS, NORM, PARTS, NATIVE)
    tl.store(at, core, live[:, None])
    tl.debug_barrier()
    z = pre_activation(table, rows, x, x_weight, message, live, 1, K, D, F, F_PADDED, PARTS)
    other = normed_grad(grad_b, z, y_gate, r_gate, second, scale, 1, D, LAYERS, NORM, PARTS, NATIVE)
    tl.store(at + D, other, live[:, None])
