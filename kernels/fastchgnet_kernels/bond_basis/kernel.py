"""The radial basis and its products in Triton: a program has the basis of its bonds in registers, some frequencies at
a time. The maths: `__init__`.

Lengths, envelopes and phases are float64 up to the reduction of a phase to one turn. From there on all is in the dtype
of the frequencies, for at float32 a sine of a float64 number costs many times as much and is rounded in the end. With
the released frequencies, from 0.5 Å to the cut-off, float32 errs by 2.0e-7 of the largest value (plain torch, which
rounds once, by 5e-8) and 1.4e-7 of the largest slope; float64 by 5e-15 of each. Products have no tf32: they are a
small part of the time, and energies follow bond lengths through them.
"""

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastchgnet_kernels._launch import options
from fastchgnet_kernels._tiles import product
from fastchgnet_kernels._trigonometry import PI, cosine, reduced, sine
from fastchgnet_kernels.bond_basis.basis import Basis


class Tile(NamedTuple):
    """What registers hold."""

    rows: int  # bonds per program
    columns: int  # frequencies at a time
    warps: int


WRITTEN = {torch.float32: Tile(128, 32, 4), torch.float64: Tile(128, 8, 4)}
MULTIPLIED = {torch.float32: Tile(128, 32, 8), torch.float64: Tile(32, 16, 4)}  # 16 columns a product takes at least
GRADIENT_COLUMNS = 64  # of grad_y at a time


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
def basis_tile(length, t, odd, f, CUTOFF: tl.constexpr, EXPONENT: tl.constexpr, NORM: tl.constexpr):
    """b_k(r), (rows, columns)."""
    u, _ = envelope(length / CUTOFF, EXPONENT)
    return sine(t, odd) * (NORM * u / length).to(f.dtype)[:, None]


@triton.jit
def slope_tile(length, t, odd, f, CUTOFF: tl.constexpr, EXPONENT: tl.constexpr, NORM: tl.constexpr):
    """b_k'(r) = √(2/c)/r · [f/c cos(f x) u + sin(f x) (u'/c - u/r)], (rows, columns)."""
    u, slope = envelope(length / CUTOFF, EXPONENT)
    scale = NORM / length
    by_cosine = (scale * u / CUTOFF).to(f.dtype)[:, None] * f[None, :]
    by_sine = (scale * (slope / CUTOFF - u / length)).to(f.dtype)[:, None]
    return cosine(t, odd) * by_cosine + sine(t, odd) * by_sine


@triton.jit(do_not_specialize=["n_bonds"])
def bond_basis_forward_kernel(
    r,  # (bonds,)
    frequencies,  # (K,)
    weight,  # (K, M)
    out,  # (bonds, M)
    n_bonds,
    K: tl.constexpr, COLUMNS: tl.constexpr, CUTOFF: tl.constexpr, EXPONENT: tl.constexpr, NORM: tl.constexpr,
    M: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """This program computes b W of ROWS bonds."""
    bond = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = bond < n_bonds
    length = tl.load(r + bond, live, CUTOFF).to(tl.float64)
    column = tl.arange(0, M)
    total = tl.zeros((ROWS, M), out.dtype.element_ty)
    for first in range(0, K, COLUMNS):
        k = first + tl.arange(0, COLUMNS)
        filled = k < K
        t, odd, f = phases(length, frequencies, k, filled, CUTOFF)
        basis = basis_tile(length, t, odd, f, CUTOFF, EXPONENT, NORM)
        w = tl.load(weight + k[:, None] * M + column[None, :], filled[:, None], 0.0)
        total = product(basis, w, total, PARTS)
    tl.store(out + bond[:, None].to(tl.int64) * M + column[None, :], total, live[:, None])


@triton.jit(do_not_specialize=["n_bonds"])
def bond_basis_backward_kernel(
    r, frequencies, weight,
    grad_y,  # (bonds, M)
    grad_r,  # (bonds,) float64, added to
    n_bonds,
    K: tl.constexpr, COLUMNS: tl.constexpr, CUTOFF: tl.constexpr, EXPONENT: tl.constexpr, NORM: tl.constexpr,
    M: tl.constexpr, GRADIENT_COLUMNS: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """This program adds Σ_k (grad_y Wᵀ)_k b_k' of ROWS bonds."""
    bond = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = bond < n_bonds
    length = tl.load(r + bond, live, CUTOFF).to(tl.float64)
    total = tl.zeros((ROWS, COLUMNS), grad_y.dtype.element_ty)
    for first in range(0, K, COLUMNS):
        k = first + tl.arange(0, COLUMNS)
        filled = k < K
        grad_basis = tl.zeros((ROWS, COLUMNS), grad_y.dtype.element_ty)
        for part in range(0, M, GRADIENT_COLUMNS):
            column = part + tl.arange(0, GRADIENT_COLUMNS)
            grad = tl.load(grad_y + bond[:, None].to(tl.int64) * M + column[None, :], live[:, None], 0.0)
            transposed = tl.load(weight + k[None, :] * M + column[:, None], filled[None, :], 0.0)
            grad_basis = product(grad, transposed, grad_basis, PARTS)
        t, odd, f = phases(length, frequencies, k, filled, CUTOFF)
        total += grad_basis * slope_tile(length, t, odd, f, CUTOFF, EXPONENT, NORM)
    before = tl.load(grad_r + bond, live, 0.0)
    tl.store(grad_r + bond, before + tl.sum(total, 1).to(tl.float64), live)


@triton.jit(do_not_specialize=["n_bonds"])
def bond_basis_written_kernel(
    r, frequencies,
    out,  # (bonds, K)
    n_bonds,
    K: tl.constexpr, COLUMNS: tl.constexpr, CUTOFF: tl.constexpr, EXPONENT: tl.constexpr, NORM: tl.constexpr,
    SLOPE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """This program writes b_k of ROWS bonds, or with SLOPE b_k'."""
    bond = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = bond < n_bonds
    length = tl.load(r + bond, live, CUTOFF).to(tl.float64)
    for first in range(0, K, COLUMNS):
        k = first + tl.arange(0, COLUMNS)
        filled = k < K
        t, odd, f = phases(length, frequencies, k, filled, CUTOFF)
        if SLOPE:
            tile = slope_tile(length, t, odd, f, CUTOFF, EXPONENT, NORM)
        else:
            tile = basis_tile(length, t, odd, f, CUTOFF, EXPONENT, NORM)
        tl.store(out + bond[:, None].to(tl.int64) * K + k[None, :], tile, live[:, None] & filled[None, :])


def forward(basis: Basis, weight: Tensor, out: Tensor) -> Tensor:
    """y = b(r) W into `out` (n, m)."""
    if out.numel():
        tile = MULTIPLIED[weight.dtype]
        bond_basis_forward_kernel[(triton.cdiv(len(out), tile.rows),)](
            basis.r, basis.frequencies, weight, out, len(out), **shape(basis, tile), **product_shape(weight)
        )
    return out


def backward(grad_y: Tensor, basis: Basis, weight: Tensor, grad_r: Tensor) -> None:
    """Adds Σ_k (grad_y Wᵀ)_k b_k'(r) to grad_r (n,) float64."""
    n, m = grad_y.shape
    if grad_y.numel():
        tile = MULTIPLIED[weight.dtype]
        bond_basis_backward_kernel[(triton.cdiv(n, tile.rows),)](
            basis.r, basis.frequencies, weight, grad_y.contiguous(), grad_r, n,
            **shape(basis, tile), **product_shape(weight), GRADIENT_COLUMNS=min(m, GRADIENT_COLUMNS),
        )  # fmt: skip


def values(basis: Basis) -> Tensor:
    """b_k(r), (n, k) in the dtype of the frequencies."""
    return _written(basis, slope=False)


def slope(r: Tensor, frequencies: Tensor, cutoff: float, exponent: int) -> Tensor:
    """b_k'(r), (n, k) in the dtype of the frequencies."""
    return _written(Basis(r, frequencies, cutoff, exponent, None), slope=True)


def _written(basis: Basis, *, slope: bool) -> Tensor:
    n, k = basis.r.shape[0], basis.frequencies.shape[0]
    out = basis.frequencies.new_empty(n, k)
    if out.numel():
        tile = WRITTEN[out.dtype]
        bond_basis_written_kernel[(triton.cdiv(n, tile.rows),)](
            basis.r, basis.frequencies, out, n, **shape(basis, tile), SLOPE=slope
        )
    return out


def shape(basis: Basis, tile: Tile) -> dict[str, Any]:
    """What all three kernels are compiled for."""
    k = basis.frequencies.shape[0]
    return {
        "K": k,
        "COLUMNS": min(max(16, triton.next_power_of_2(k)), tile.columns),
        "CUTOFF": float(basis.cutoff),
        "EXPONENT": basis.exponent,
        "NORM": math.sqrt(2 / basis.cutoff),
        "ROWS": tile.rows,
    } | options(tile.warps)


def product_shape(weight: Tensor) -> dict[str, Any]:
    """And those that multiply."""
    return {"M": weight.shape[1], "PARTS": 0 if weight.dtype == torch.float64 else 2}
