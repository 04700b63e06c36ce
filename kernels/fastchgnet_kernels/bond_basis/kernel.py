"""The radial basis in Triton. The maths: `__init__`.

Lengths, envelopes and phases are float64 up to the reduction of a phase to one turn. From there on all is in the dtype
of the frequencies, for at float32 a sine of a float64 number costs many times as much and is rounded in the end. With
the released frequencies, from 0.5 Å to the cut-off, float32 errs by 2.0e-7 of the largest value (plain torch, which
rounds once, by 5e-8), 1.4e-7 of the largest slope and 1.1e-7 of the largest gradient; float64 by 5e-15 of each.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastchgnet_kernels._trigonometry import PI, cosine, reduced, sine

ROWS = 128  # bonds per program
COLUMNS = {torch.float32: 32, torch.float64: 8}  # frequencies at a time; registers hold no more
WARPS = 4


@triton.jit
def envelope(x, EXPONENT: tl.constexpr):
    """u(x) and du/dx: 0 from x = 1 on."""
    A: tl.constexpr = -(EXPONENT + 1) * (EXPONENT + 2) / 2
    B: tl.constexpr = EXPONENT * (EXPONENT + 2)
    C: tl.constexpr = -EXPONENT * (EXPONENT + 1) / 2
    power = tl.full(x.shape, 1.0, x.dtype)
    for _ in tl.static_range(EXPONENT - 1):
        power *= x
    u = 1.0 + power * x * (A + x * (B + x * C))
    slope = power * (A * EXPONENT + x * (B * (EXPONENT + 1) + x * (C * (EXPONENT + 2))))
    return tl.where(x < 1.0, u, 0.0), tl.where(x < 1.0, slope, 0.0)


@triton.jit
def phases(length, frequencies, k, filled, CUTOFF: tl.constexpr):
    """Phases f_k r/c of lengths r (rows,) float64, (rows, columns), reduced to one turn; f (columns,)."""
    f = tl.load(frequencies + k, filled, 0.0)
    t, odd = reduced((length / (CUTOFF * PI))[:, None] * f.to(tl.float64)[None, :])
    return t.to(f.dtype), odd, f


@triton.jit
def slope_tile(length, t, odd, f, CUTOFF: tl.constexpr, EXPONENT: tl.constexpr, NORM: tl.constexpr):
    """b_k'(r) = √(2/c)/r · [f/c cos(f x) u + sin(f x) (u'/c - u/r)], (rows, columns)."""
    u, slope = envelope(length / CUTOFF, EXPONENT)
    scale = NORM / length
    by_cosine = (scale * u / CUTOFF).to(f.dtype)[:, None] * f[None, :]
    by_sine = (scale * (slope / CUTOFF - u / length)).to(f.dtype)[:, None]
    return cosine(t, odd) * by_cosine + sine(t, odd) * by_sine


@triton.jit(do_not_specialize=["n_bonds"])
def bond_basis_kernel(
    r,  # (bonds,)
    frequencies,  # (K,)
    out,  # (bonds, K)
    n_bonds,
    K: tl.constexpr, COLUMNS: tl.constexpr, CUTOFF: tl.constexpr, EXPONENT: tl.constexpr, NORM: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """This program computes b_k of ROWS bonds."""
    bond = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = bond < n_bonds
    length = tl.load(r + bond, live, CUTOFF).to(tl.float64)
    for first in range(0, K, COLUMNS):
        k = first + tl.arange(0, COLUMNS)
        filled = k < K
        t, odd, f = phases(length, frequencies, k, filled, CUTOFF)
        u, _ = envelope(length / CUTOFF, EXPONENT)
        basis = sine(t, odd) * (NORM * u / length).to(f.dtype)[:, None]
        tl.store(out + bond[:, None].to(tl.int64) * K + k[None, :], basis, live[:, None] & filled[None, :])


@triton.jit(do_not_specialize=["n_bonds"])
def bond_basis_slope_kernel(
    r, frequencies, out, n_bonds,
    K: tl.constexpr, COLUMNS: tl.constexpr, CUTOFF: tl.constexpr, EXPONENT: tl.constexpr, NORM: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """This program computes b_k' of ROWS bonds."""
    bond = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = bond < n_bonds
    length = tl.load(r + bond, live, CUTOFF).to(tl.float64)
    for first in range(0, K, COLUMNS):
        k = first + tl.arange(0, COLUMNS)
        filled = k < K
        t, odd, f = phases(length, frequencies, k, filled, CUTOFF)
        slope = slope_tile(length, t, odd, f, CUTOFF, EXPONENT, NORM)
        tl.store(out + bond[:, None].to(tl.int64) * K + k[None, :], slope, live[:, None] & filled[None, :])


@triton.jit(do_not_specialize=["n_bonds"])
def bond_basis_backward_kernel(
    r, frequencies,
    grad_basis,  # (bonds, K)
    grad_r,  # (bonds,) float64
    n_bonds,
    K: tl.constexpr, COLUMNS: tl.constexpr, CUTOFF: tl.constexpr, EXPONENT: tl.constexpr, NORM: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """This program computes Σ_k grad_k b_k' of ROWS bonds."""
    bond = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = bond < n_bonds
    length = tl.load(r + bond, live, CUTOFF).to(tl.float64)
    total = tl.zeros((ROWS, COLUMNS), grad_basis.dtype.element_ty)
    for first in range(0, K, COLUMNS):
        k = first + tl.arange(0, COLUMNS)
        filled = k < K
        at = bond[:, None].to(tl.int64) * K + k[None, :]
        grad = tl.load(grad_basis + at, live[:, None] & filled[None, :], 0.0)
        t, odd, f = phases(length, frequencies, k, filled, CUTOFF)
        total += grad * slope_tile(length, t, odd, f, CUTOFF, EXPONENT, NORM)
    tl.store(grad_r + bond, tl.sum(total, 1).to(tl.float64), live)


def forward(r: Tensor, frequencies: Tensor, cutoff: float, exponent: int) -> Tensor:
    """b_k(r), (n, k) in the dtype of the frequencies."""
    out = frequencies.new_empty(r.shape[0], frequencies.shape[0])
    if out.numel():
        grid, shape = launch(r, frequencies, cutoff, exponent)
        bond_basis_kernel[grid](r, frequencies, out, r.shape[0], **shape)
    return out


def backward(grad_basis: Tensor, r: Tensor, frequencies: Tensor, cutoff: float, exponent: int) -> Tensor:
    """grad_r = Σ_k grad_k b_k'(r), (n,) float64."""
    grad_r = r.new_empty(r.shape[0], dtype=torch.float64)
    if grad_r.numel():
        grid, shape = launch(r, frequencies, cutoff, exponent)
        bond_basis_backward_kernel[grid](r, frequencies, grad_basis.contiguous(), grad_r, r.shape[0], **shape)
    return grad_r


def slope(r: Tensor, frequencies: Tensor, cutoff: float, exponent: int) -> Tensor:
    """b_k'(r), (n, k) in the dtype of the frequencies."""
    out = frequencies.new_empty(r.shape[0], frequencies.shape[0])
    if out.numel():
        grid, shape = launch(r, frequencies, cutoff, exponent)
        bond_basis_slope_kernel[grid](r, frequencies, out, r.shape[0], **shape)
    return out


def launch(r: Tensor, frequencies: Tensor, cutoff: float, exponent: int) -> tuple[tuple[int], dict[str, Any]]:
    """The grid, and what a kernel is compiled for."""
    k = frequencies.shape[0]
    return (triton.cdiv(r.shape[0], ROWS),), {
        "K": k,
        "COLUMNS": min(triton.next_power_of_2(k), COLUMNS[frequencies.dtype]),
        "CUTOFF": float(cutoff),
        "EXPONENT": exponent,
        "NORM": math.sqrt(2 / cutoff),
        "ROWS": ROWS,
        "num_warps": WARPS,
    }
