"""Energies of atoms and their adjoint in Triton, one launch each; the adjoint computes hidden layers again.

The maths: `__init__`.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastchgnet_kernels._launch import DOUBLE_TILE, INTERPRETED, SMALL_TILE, options
from fastchgnet_kernels._tiles import product, sigmoid, silu_grad, standardise, standardise_grad
from fastchgnet_kernels.readout.weights import ReadoutWeights

# Of no generation do these spill in float32. Atoms are few: larger tiles would leave most of a GPU idle.
TILES = {torch.float32: SMALL_TILE, torch.float64: DOUBLE_TILE}


@triton.jit
def pre_activation(x, hidden, hidden_bias, layer, D: tl.constexpr, PARTS: tl.constexpr):
    """z = x W + b of one layer, (rows, D)."""
    column = tl.arange(0, D)
    weight = tl.load(hidden + layer * D * D + column[:, None] * D + column[None, :])
    bias = tl.load(hidden_bias + layer * D + column)[None, :]
    return product(x, weight, tl.broadcast_to(bias, x.shape), PARTS)


@triton.jit
def pre_activation_grad(grad, z, hidden, layer, D: tl.constexpr, PARTS: tl.constexpr, NATIVE: tl.constexpr):
    """∂e/∂x of one layer from ∂e/∂silu(z), (rows, D)."""
    column = tl.arange(0, D)
    transposed = tl.load(hidden + layer * D * D + column[None, :] * D + column[:, None])
    return product(grad * silu_grad(z, sigmoid(z, NATIVE)), transposed, tl.zeros_like(z), PARTS)


@triton.jit
def normed_atoms(a, scale, shift, D: tl.constexpr, NORM: tl.constexpr):
    """LN(a) (rows, D), or a where there is no norm."""
    if NORM:
        column = tl.arange(0, D)
        a, _ = standardise(a, D)
        a = a * tl.load(scale + column)[None, :] + tl.load(shift + column)[None, :]
    return a


@triton.jit(do_not_specialize=["n_atoms"])
def readout_forward_kernel(
    atoms,  # (atoms, D)
    scale, shift,  # (D,)
    hidden, hidden_bias,  # (layers, D, D), (layers, D)
    out, out_bias,  # (1, D), (1,)
    energy,  # (atoms,)
    normed,  # (atoms, D); not written without a norm
    n_atoms,
    D: tl.constexpr, LAYERS: tl.constexpr, NORM: tl.constexpr, PARTS: tl.constexpr, NATIVE: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """This program computes the energies of ROWS atoms."""
    atom, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, D)
    live = atom < n_atoms
    at = atom[:, None].to(tl.int64) * D + column[None, :]
    x = normed_atoms(tl.load(atoms + at, live[:, None], 0.0), scale, shift, D, NORM)
    if NORM:
        tl.store(normed + at, x, live[:, None])
    for layer in tl.static_range(LAYERS):
        z = pre_activation(x, hidden, hidden_bias, layer, D, PARTS)
        x = z * sigmoid(z, NATIVE)
    e = tl.sum(x * tl.load(out + column)[None, :], 1) + tl.load(out_bias)
    tl.store(energy + atom, e, live)


@triton.jit(do_not_specialize=["n_atoms"])
def readout_backward_kernel(
    atoms, scale, shift, hidden, hidden_bias, out,
    grad_atoms,  # (atoms, D)
    n_atoms,
    D: tl.constexpr, LAYERS: tl.constexpr, NORM: tl.constexpr, PARTS: tl.constexpr, NATIVE: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """This program computes ∂e/∂a of ROWS atoms."""
    atom, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, D)
    live = atom < n_atoms
    at = atom[:, None].to(tl.int64) * D + column[None, :]
    x = normed_atoms(tl.load(atoms + at, live[:, None], 0.0), scale, shift, D, NORM)
    pre_activations = ()
    for layer in tl.static_range(LAYERS):
        z = pre_activation(x, hidden, hidden_bias, layer, D, PARTS)
        x = z * sigmoid(z, NATIVE)
        pre_activations = pre_activations + (z,)  # type: ignore[assignment]  # noqa: RUF005 -- Triton has no stars
    grad = tl.broadcast_to(tl.load(out + column)[None, :], x.shape)
    for layer in tl.static_range(LAYERS - 1, -1, -1):
        grad = pre_activation_grad(grad, pre_activations[layer], hidden, layer, D, PARTS, NATIVE)
    if NORM:
        a, rstd = standardise(tl.load(atoms + at, live[:, None], 0.0), D)
        grad = standardise_grad(grad * tl.load(scale + column)[None, :], a, rstd, D)
    tl.store(grad_atoms + at, grad, live[:, None])


def forward(atoms: Tensor, weights: ReadoutWeights) -> tuple[Tensor, Tensor]:
    """Energies (atoms,) eV and normalised features (atoms, D)."""
    n = atoms.shape[0]
    energy, normed = atoms.new_empty(n), atoms if weights.scale is None else torch.empty_like(atoms)
    if n:
        grid, shape = launch(n, weights)
        readout_forward_kernel[grid](
            atoms, *norm(atoms, weights), weights.hidden, weights.hidden_bias, weights.out, weights.out_bias,
            energy, normed, n, **shape,
        )  # fmt: skip
    return energy, normed


def backward(atoms: Tensor, weights: ReadoutWeights) -> Tensor:
    """∂(energy of the atom)/∂(its features), (atoms, D)."""
    n = atoms.shape[0]
    grad_atoms = torch.empty_like(atoms)
    if n:
        grid, shape = launch(n, weights)
        readout_backward_kernel[grid](
            atoms, *norm(atoms, weights), weights.hidden, weights.hidden_bias, weights.out, grad_atoms, n, **shape
        )
    return grad_atoms


def norm(atoms: Tensor, weights: ReadoutWeights) -> tuple[Tensor, Tensor]:
    """Scale and shift; the atoms stand in where there is no norm, and are not read for it."""
    return (atoms, atoms) if weights.scale is None or weights.shift is None else (weights.scale, weights.shift)


def launch(n_atoms: int, weights: ReadoutWeights) -> tuple[tuple[int], dict[str, Any]]:
    """The grid, and what a kernel is compiled for.

    There is no tf32: atoms are few, so that there is next to no time to win, and all of the energy to lose.
    """
    single, tile = weights.hidden.dtype == torch.float32, TILES[weights.hidden.dtype]
    return (triton.cdiv(n_atoms, tile.rows),), {
        "D": weights.out.shape[1],
        "LAYERS": weights.hidden.shape[0],
        "NORM": weights.scale is not None,
        "PARTS": 2 if single else 0,
        "NATIVE": single and not INTERPRETED,
        "ROWS": tile.rows,
    } | options(tile.warps)
