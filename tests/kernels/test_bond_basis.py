"""The radial basis of bond lengths under its envelope."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastchgnet_kernels import bond_basis
from fastchgnet_kernels.bond_basis.reference import envelope
from tests.closeness import assert_equal_to_rounding
from tests.conftest import PoisonedMemory
from tests.kernels.gated import SIZES

CUTOFFS = [(6.0, 8), (3.0, 8), (5.0, 5)]  # Å and exponent, of the released models


def lengths(n: int, cutoff: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """From 0.4 Å to beyond the cut-off, float32 numbers; the last one is the cut-off."""
    r = 0.4 + cutoff * torch.rand(n, generator=torch.Generator().manual_seed(n))
    r[-1:] = cutoff
    return r.to(dtype)


def frequencies(k: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Near π n, as in trained models, but not equal to it."""
    noise = 0.05 * torch.randn(k, generator=torch.Generator().manual_seed(k))
    return (math.pi * torch.arange(1, k + 1) + noise).to(dtype)


def looped(r: Tensor, f: Tensor, cutoff: float, p: int) -> Tensor:
    """√(2/c) sin(f r/c)/r · u(r/c), one bond at a time; differentiable by autograd."""
    rows = []
    for one in r:
        x = one / cutoff
        u = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
        rows.append(math.sqrt(2 / cutoff) * torch.sin(f * x) / one * (u if x < 1 else 0 * one))
    return torch.stack(rows) if rows else r.new_zeros(0, len(f))


class BondBasis(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, r: Tensor, *rest: Any) -> Tensor:
        ctx.rest = (r, *rest)
        return bond_basis.forward(r, *rest)

    @staticmethod
    def backward(ctx: Any, grad_basis: Tensor) -> tuple[Tensor, None, None, None]:
        return bond_basis.backward(grad_basis, *ctx.rest), None, None, None


@pytest.mark.parametrize(("cutoff", "exponent"), CUTOFFS)
@pytest.mark.parametrize("n", SIZES)
def test_forward_is_the_formula_bond_by_bond(n: int, cutoff: float, exponent: int) -> None:
    r, f = lengths(n, cutoff), frequencies(5)
    assert_equal_to_rounding(bond_basis.forward(r, f, cutoff, exponent), looped(r, f, cutoff, exponent))


@pytest.mark.parametrize(("cutoff", "exponent"), CUTOFFS)
@pytest.mark.parametrize("n", [1, 63])
def test_backward_is_the_derivative(n: int, cutoff: float, exponent: int) -> None:
    # Third derivatives are of order (f/c)³ b ≈ 50: 1e-10/6 · 50 of truncation, 1e-16/1e-5 of rounding.
    r = lengths(n, cutoff).requires_grad_()
    assert torch.autograd.gradcheck(
        BondBasis.apply, (r, frequencies(5), cutoff, exponent), eps=1e-5, atol=1e-8, rtol=1e-8
    )


@pytest.mark.parametrize(("cutoff", "exponent"), CUTOFFS)
@pytest.mark.parametrize("n", SIZES)
def test_backward_is_what_autograd_makes_of_the_formula(n: int, cutoff: float, exponent: int) -> None:
    r, f = lengths(n, cutoff).requires_grad_(), frequencies(31)
    basis = looped(r, f, cutoff, exponent)
    grad_basis = torch.randn(basis.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.zeros_like(r) if n == 0 else torch.autograd.grad(basis, r, grad_basis)[0]
    assert_equal_to_rounding(bond_basis.backward(grad_basis, r.detach(), f, cutoff, exponent), expected)


@pytest.mark.parametrize(("cutoff", "exponent"), CUTOFFS)
@pytest.mark.parametrize("n", SIZES)
def test_float32_loses_nothing_but_the_rounding_of_its_results(n: int, cutoff: float, exponent: int) -> None:
    """In float32 a phase of 100 would be wrong by 4e-6, and forces twenty times worse than all other roundings."""
    r, f = lengths(n, cutoff).requires_grad_(), frequencies(31, torch.float32)
    exact = looped(r, f.double(), cutoff, exponent)
    found = bond_basis.forward(r.detach(), f, cutoff, exponent)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact.detach().float(), rtol=2e-7, atol=1e-12)
    grad_basis = torch.randn(exact.shape, generator=torch.Generator().manual_seed(2))
    if n:
        (exact_grad,) = torch.autograd.grad(exact, r, grad_basis.double())
        assert_equal_to_rounding(bond_basis.backward(grad_basis, r.detach(), f, cutoff, exponent), exact_grad)


@pytest.mark.parametrize("p", [1, 2, 5, 8])
def test_the_envelope_falls_from_one_to_zero_with_its_first_and_second_derivative(p: int) -> None:
    """Near 1 it is K (1-x)³ with K = p(p+1)(p+2)/6, so u, u' and u'' are 0 there; and u is 1 at 0."""
    K = p * (p + 1) * (p + 2) / 6
    h = torch.tensor([1e-2, 1e-3], dtype=torch.float64)
    u, slope = envelope(1 - h, p)
    # The next term of the series is at most p h times the first; rounding is 1e-14 of terms that reach 80.
    assert (u / h**3 / K - 1).abs().tolist() == [pytest.approx(0, abs=p * x) for x in h.tolist()]
    assert (slope / h**2 / (-3 * K) - 1).abs().tolist() == [pytest.approx(0, abs=2 * p * x) for x in h.tolist()]
    beyond = torch.tensor([1.0, 1.0 + 1e-9, 2.0], dtype=torch.float64)
    assert all((value == 0).all() for value in envelope(beyond, p))
    assert envelope(torch.zeros(1, dtype=torch.float64), p)[0] == 1
    inner = envelope(torch.linspace(0, 1, 200, dtype=torch.float64), p)[0]
    assert (inner.diff() <= 1e-14).all()


@pytest.mark.parametrize(("cutoff", "exponent"), CUTOFFS)
def test_basis_slope_and_curvature_vanish_at_the_cutoff(cutoff: float, exponent: int) -> None:
    """b ~ δ³, b' ~ δ², b'' ~ δ at the distance δ from the cut-off: halving it divides them by 8, 4 and 2 at least."""
    f = frequencies(31)
    delta = torch.tensor([4e-3, 2e-3], dtype=torch.float64)

    def slopes(r: Tensor) -> Tensor:
        one_by_one = torch.eye(31, dtype=f.dtype)[:, None].expand(-1, len(r), -1)
        return torch.stack([bond_basis.backward(only, r, f, cutoff, exponent) for only in one_by_one])

    r = cutoff - delta
    values = bond_basis.forward(r, f, cutoff, exponent).abs().amax(1)
    first = slopes(r).abs().amax(0)
    second = ((slopes(r + 1e-6) - slopes(r - 1e-6)) / 2e-6).abs().amax(0)
    # Within 5 %: the next order is δ/c times p or f, up to 0.0013 · 100 relative, and has the sign that helps.
    assert values[1] / values[0] <= 1.05 / 8
    assert first[1] / first[0] <= 1.05 / 4
    assert second[1] / second[0] <= 1.05 / 2
    outside = torch.tensor([cutoff, cutoff + 1e-12, cutoff + 1], dtype=torch.float64)
    assert (bond_basis.forward(outside, f, cutoff, exponent) == 0).all()
    assert (slopes(outside) == 0).all()


def test_nothing_is_read_before_it_is_written(poisoned_memory: PoisonedMemory) -> None:
    r, f = lengths(63, 6.0), frequencies(9)

    def compute() -> tuple[Tensor, Tensor]:
        basis = bond_basis.forward(r, f, 6.0, 8)
        return basis, bond_basis.backward(basis, r, f, 6.0, 8)

    for clean, poisoned in zip(compute(), poisoned_memory.run(compute), strict=True):
        assert clean.isfinite().all()
        assert torch.equal(clean, poisoned)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inputs_are_left_as_they_were(dtype: torch.dtype) -> None:
    r, f = lengths(63, 6.0, dtype), frequencies(9, dtype)
    basis = bond_basis.forward(r, f, 6.0, 8)
    before = r.clone(), f.clone(), basis.clone()
    bond_basis.backward(basis, r, f, 6.0, 8)
    assert all(map(torch.equal, (r, f, basis), before))
