"""The Fourier basis of angles in Triton. The maths: `__init__`.

With the frequencies of CHGNet 0.3.0, from 0 to π, float32 errs by 2.7e-6 at most, which is a rounding of θ and another
of the phase f θ (plain torch errs by 2.0e-6); float64 by 8e-15.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastchgnet_kernels._launch import options
from fastchgnet_kernels._trigonometry import arc_cosine, cosine, reduced, sine
from fastchgnet_kernels.angle_basis import reference

SHRINK: tl.constexpr = tl.constexpr(reference.SHRINK)
INV_SQRT_PI: tl.constexpr = tl.constexpr(reference.INV_SQRT_PI)
INV_SQRT_2PI: tl.constexpr = tl.constexpr(reference.INV_SQRT_PI / math.sqrt(2))
ROWS = 128  # angles per program
WARPS = 4
EDGES = 32  # per program of the gradient of unit vectors
SLOTS = 16  # angles of each of them at a time


@triton.jit
def unit_vector(unit, edge, live):
    """x, y, z of unit[edge]; 0 where not live."""
    at = unit + edge.to(tl.int64) * 3
    return tl.load(at, live, 0.0), tl.load(at + 1, live, 0.0), tl.load(at + 2, live, 0.0)


@triton.jit(do_not_specialize=["n_angles"])
def angle_basis_kernel(
    unit,  # (edges, 3) float64
    edges_of_angle,  # (angles, 2)
    frequencies,  # (K,)
    out,  # (angles, 2K + 1)
    n_angles,
    K: tl.constexpr, K_PADDED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """This program computes the basis of ROWS angles."""
    angle = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, K_PADDED)
    live, filled = angle < n_angles, k < K
    edges = edges_of_angle + angle.to(tl.int64) * 2
    x, y, z = unit_vector(unit, tl.load(edges, live, 0), live)
    x_other, y_other, z_other = unit_vector(unit, tl.load(edges + 1, live, 0), live)
    f = tl.load(frequencies + k, filled, 0.0)
    theta = arc_cosine((x * x_other + y * y_other + z * z_other) * SHRINK, f.dtype)
    t, odd = reduced(theta[:, None] * f[None, :])
    row = out + angle.to(tl.int64) * (2 * K + 1)
    tl.store(row, tl.full((ROWS,), INV_SQRT_2PI, f.dtype), live)
    inside = live[:, None] & filled[None, :]
    at = row[:, None] + k[None, :] + 1
    tl.store(at, sine(t, odd) * INV_SQRT_PI, inside)
    tl.store(at + K, cosine(t, odd) * INV_SQRT_PI, inside)


@triton.jit(do_not_specialize=["n_angles"])
def angle_basis_backward_kernel(
    grad_basis, basis,  # (angles, 2K + 1)
    frequencies,
    grad_theta,  # (angles,) float64
    n_angles,
    K: tl.constexpr, K_PADDED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """This program computes Σ_k f_k (grad_sin,k cos - grad_cos,k sin) of ROWS angles."""
    angle = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, K_PADDED)
    live, filled = angle < n_angles, k < K
    inside = live[:, None] & filled[None, :]
    at = angle.to(tl.int64)[:, None] * (2 * K + 1) + k[None, :] + 1
    slope = tl.load(grad_basis + at, inside, 0.0) * tl.load(basis + at + K, inside, 0.0)
    slope -= tl.load(grad_basis + at + K, inside, 0.0) * tl.load(basis + at, inside, 0.0)
    f = tl.load(frequencies + k, filled, 0.0)
    tl.store(grad_theta + angle, tl.sum(slope * f[None, :], 1).to(tl.float64), live)


@triton.jit(do_not_specialize=["n_edges"])
def angle_basis_backward_theta_kernel(
    grad_theta, unit, edges_of_angle,
    ptr,  # (edges + 1,) the angles that each edge receives
    grad_unit,  # (edges, 3) float64
    n_edges,
    EDGES: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """This program computes the gradients of EDGES unit vectors, from SLOTS angles of each at a time."""
    edge = tl.program_id(0) * EDGES + tl.arange(0, EDGES)
    live = edge < n_edges
    start, stop = tl.load(ptr + edge, live, 0), tl.load(ptr + edge + 1, live, 0)
    x, y, z = unit_vector(unit, edge, live)
    grad_x = tl.zeros((EDGES, SLOTS), tl.float64)
    grad_y, grad_z = grad_x, grad_x
    for begin in range(0, tl.max(stop - start, 0), SLOTS):
        angle = (start + begin)[:, None] + tl.arange(0, SLOTS)[None, :]
        inside = angle < stop[:, None]
        other = tl.load(edges_of_angle + angle.to(tl.int64) * 2 + 1, inside, 0)
        x_other, y_other, z_other = unit_vector(unit, other, inside)
        cosine = (x[:, None] * x_other + y[:, None] * y_other + z[:, None] * z_other) * SHRINK
        grad = tl.load(grad_theta + angle, inside, 0.0) * -SHRINK * tl.rsqrt(1.0 - cosine * cosine)
        grad_x += grad * x_other
        grad_y += grad * y_other
        grad_z += grad * z_other
    at = grad_unit + edge.to(tl.int64) * 3
    tl.store(at, tl.sum(grad_x, 1), live)
    tl.store(at + 1, tl.sum(grad_y, 1), live)
    tl.store(at + 2, tl.sum(grad_z, 1), live)


def forward(unit: Tensor, edges_of_angle: Tensor, frequencies: Tensor) -> Tensor:
    """[1/√2, sin(f_k θ), cos(f_k θ)] / √π, (angles, 2k + 1) in the dtype of the frequencies."""
    n, k = edges_of_angle.shape[0], frequencies.shape[0]
    out = frequencies.new_empty(n, 2 * k + 1)
    if n:
        angle_basis_kernel[(triton.cdiv(n, ROWS),)](
            unit, edges_of_angle, frequencies, out, n,
            K=k, K_PADDED=triton.next_power_of_2(k), ROWS=ROWS, **options(WARPS),
        )  # fmt: skip
    return out


def backward(grad_basis: Tensor, basis: Tensor, frequencies: Tensor, transpose: Tensor) -> Tensor:
    """grad_θ of each angle together with its mirror, the angle at `transpose`, (angles,) float64."""
    n, k = basis.shape[0], frequencies.shape[0]
    grad_theta = basis.new_empty(n, dtype=torch.float64)
    if n:
        angle_basis_backward_kernel[(triton.cdiv(n, ROWS),)](
            grad_basis.contiguous(), basis, frequencies, grad_theta, n,
            K=k, K_PADDED=triton.next_power_of_2(k), ROWS=ROWS, **options(WARPS),
        )  # fmt: skip
    return grad_theta + grad_theta.index_select(0, transpose)


def backward_theta(grad_theta: Tensor, unit: Tensor, edges_of_angle: Tensor, received_ptr: Tensor) -> Tensor:
    """grad_u[e] = Σ_{α received by e} g_α u[e'], (edges, 3) float64."""
    n_edges = unit.shape[0]
    grad_unit = torch.empty_like(unit)
    if n_edges:
        angle_basis_backward_theta_kernel[(triton.cdiv(n_edges, EDGES),)](
            grad_theta, unit, edges_of_angle, received_ptr, grad_unit, n_edges,
            EDGES=EDGES, SLOTS=SLOTS, **options(WARPS),
        )  # fmt: skip
    return grad_unit
