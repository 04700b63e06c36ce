"""Energies of atoms from their features, and the adjoint."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastchgnet_kernels import readout
from fastchgnet_kernels.readout import ReadoutWeights
from tests.closeness import assert_equal_to_rounding, assert_no_worse_than_plain
from tests.kernels.gated import SIZES, cast

ARCHITECTURES = list(itertools.product((1, 3), (True, False)))  # hidden layers; with a norm or without
architectures = pytest.mark.parametrize(("layers", "norm"), ARCHITECTURES)


def make_weights(layers: int, norm: bool, width: int, dtype: torch.dtype = torch.float64) -> ReadoutWeights:
    """Random ones, float32 numbers in any dtype, no two alike."""
    random = torch.Generator().manual_seed(layers)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random) / width**0.5

    made = ReadoutWeights(
        scale=1 + normal(width) if norm else None,
        shift=normal(width) if norm else None,
        hidden=2 * normal(layers, width, width),
        hidden_bias=normal(layers, width),
        out=normal(1, width),
        out_bias=normal(1),
    )
    return ReadoutWeights(*cast(made, dtype))


def features(n: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """(n, width), whose mean and deviation differ from row to row."""
    random = torch.Generator().manual_seed(n)
    spread, shift = (torch.randn(n, 1, generator=random) for _ in range(2))
    return (torch.randn(n, width, generator=random) * (1 + spread.abs()) + shift).to(dtype)


def looped(atoms: Tensor, w: ReadoutWeights) -> tuple[Tensor, Tensor]:
    """Energies and normalised features, one atom at a time; differentiable by autograd."""
    energies, normed = [], []
    for x in atoms:
        if w.scale is not None and w.shift is not None:
            away = x - x.mean()
            x = away / ((away**2).mean() + 1e-5).sqrt() * w.scale + w.shift
        normed.append(x)
        for weight, bias in zip(w.hidden, w.hidden_bias, strict=True):
            z = (x[:, None] * weight).sum(0) + bias
            x = z / (1 + torch.exp(-z))
        energies.append((x * w.out[0]).sum() + w.out_bias[0])
    return (torch.stack(energies), torch.stack(normed)) if energies else (atoms[:, 0], atoms)


def plain(atoms: Tensor, w: ReadoutWeights) -> list[Tensor]:
    """Energies, normalised features, gradients: as one would write it, and what autograd makes of it."""
    leaf = atoms.clone().requires_grad_()
    normed = x = leaf
    if w.scale is not None and w.shift is not None:
        normed = x = torch.nn.functional.layer_norm(leaf, leaf.shape[1:], w.scale, w.shift)
    for weight, bias in zip(w.hidden, w.hidden_bias, strict=True):
        x = torch.nn.functional.silu(x @ weight + bias)
    energy = x @ w.out[0] + w.out_bias
    return [energy.detach(), normed.detach(), torch.autograd.grad(energy.sum(), leaf)[0]]


def run(atoms: Tensor, w: ReadoutWeights) -> list[Tensor]:
    """Energies, normalised features, gradients by the op."""
    energy, normed, kept = readout.forward(atoms, w)
    return [energy, normed, readout.backward(atoms, w, kept)]


class Readout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, atoms: Tensor, w: ReadoutWeights) -> Tensor:
        ctx.given = atoms, w
        energy, _, ctx.kept = readout.forward(atoms, w)
        return energy

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad[:, None] * readout.backward(*ctx.given, ctx.kept), None


@architectures
@pytest.mark.parametrize("n", SIZES)
def test_forward_is_the_formula_atom_by_atom(n: int, layers: int, norm: bool) -> None:
    atoms, w = features(n, 8), make_weights(layers, norm, 8)
    energy, normed, _ = readout.forward(atoms, w)
    for ours, theirs in zip((energy, normed), looped(atoms, w), strict=True):
        assert_equal_to_rounding(ours, theirs)


@architectures
@pytest.mark.parametrize("n", SIZES)
def test_backward_is_what_autograd_makes_of_the_formula(n: int, layers: int, norm: bool) -> None:
    atoms, w = features(n, 8).requires_grad_(), make_weights(layers, norm, 8)
    (expected,) = torch.autograd.grad(looped(atoms, w)[0].sum(), atoms)
    assert_equal_to_rounding(run(atoms.detach(), w)[2], expected)


@architectures
def test_backward_is_the_derivative(layers: int, norm: bool) -> None:
    # Third derivatives reach 1e2: 1e-10/6 · 1e2 of truncation, 1e-16/1e-5 of rounding.
    atoms, w = features(5, 4).requires_grad_(), make_weights(layers, norm, 4)
    assert torch.autograd.gradcheck(lambda x: Readout.apply(x, w), atoms, eps=1e-5, atol=1e-8, rtol=1e-6)


@architectures
def test_both_can_be_differentiated_by_features_and_by_weights(layers: int, norm: bool) -> None:
    """As training on forces does. The slopes are those of the formula, where autograd differentiates it twice."""
    given = [features(5, 4), *make_weights(layers, norm, 4)]
    leaves = [None if x is None else x.requires_grad_() for x in given]
    real = [x for x in leaves if x is not None]
    atoms, w = leaves[0], ReadoutWeights(*leaves[1:])
    (theirs,) = torch.autograd.grad(looped(atoms, w)[0].sum(), atoms, create_graph=True)
    for exact, ours in [
        (looped(atoms, w)[0], readout.forward(atoms, w)[0]),
        (theirs, readout.backward(atoms, w, None)),
        (theirs, readout.backward(atoms, w, readout.forward(atoms, w)[2])),
    ]:
        weights_of_sum = torch.randn(exact.shape, generator=torch.Generator().manual_seed(4)).double()
        expected, found = (
            torch.autograd.grad((x * weights_of_sum).sum(), real, retain_graph=True, materialize_grads=True,
                                allow_unused=True)
            for x in (exact, ours)
        )  # fmt: skip
        assert any(slope.any() for slope in expected)
        for slope, same in zip(found, expected, strict=True):
            assert_equal_to_rounding(slope, same, scale=1.0)


@architectures
@pytest.mark.parametrize("n", SIZES)
def test_float32_is_no_worse_than_plain(n: int, layers: int, norm: bool) -> None:
    atoms, w = features(n, 64, torch.float32), make_weights(layers, norm, 64, torch.float32)
    exact = plain(atoms.double(), ReadoutWeights(*cast(w, torch.float64)))
    for ours, theirs, truth in zip(run(atoms, w), plain(atoms, w), exact, strict=True):
        assert_no_worse_than_plain(ours, theirs, truth)


@architectures
def test_what_is_kept_gives_the_same_bits_as_computing_it_again(layers: int, norm: bool) -> None:
    atoms, w = features(63, 8, torch.float32), make_weights(layers, norm, 8, torch.float32)
    assert torch.equal(run(atoms, w)[2], readout.backward(atoms, w, None))


def test_saturated_features_give_finite_energies_and_slopes() -> None:
    """Pre-activations of released models reach hundreds, where exponentials are infinite or zero in float32."""
    w = make_weights(1, False, 8, torch.float32)
    atoms = 300 * features(63, 8, torch.float32)
    assert float((atoms @ w.hidden[0]).abs().max()) > math.log(torch.finfo(torch.float32).max)
    exact = plain(atoms.double(), ReadoutWeights(*cast(w, torch.float64)))
    for ours, theirs, truth in zip(run(atoms, w), plain(atoms, w), exact, strict=True):
        assert_no_worse_than_plain(ours, theirs, truth)


def test_the_inputs_are_left_as_they_were() -> None:
    atoms, w = features(63, 8), make_weights(3, True, 8)
    before = [x.clone() for x in (atoms, *w) if x is not None]
    run(atoms, w)
    assert all(map(torch.equal, [x for x in (atoms, *w) if x is not None], before))
