"""The radial basis of bond lengths under its envelope, and its products with weights."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastchgnet_kernels import bond_basis
from fastchgnet_kernels.bond_basis import Basis, reference
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


def weights(k: int, m: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """(k, m), different for each m."""
    return torch.randn(k, m, generator=torch.Generator().manual_seed(m)).to(dtype)


def grad_like(r: Tensor, weight: Tensor) -> Tensor:
    """Of what `weight` makes of the bonds."""
    return torch.randn(len(r), weight.shape[1], generator=torch.Generator().manual_seed(1)).to(weight.dtype)


def grad_length(grads: list[Tensor], of: list[Tensor], basis: Basis) -> Tensor:
    """∂E/∂r, where E depends on the bonds through several products."""
    total = bond_basis.new_grad(basis)
    for grad_y, weight in zip(grads, of, strict=True):
        bond_basis.backward(grad_y, basis, weight, grad=total)
    return bond_basis.grad_length(total, basis)


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, r: Tensor, f: Tensor, cutoff: float, exponent: int, weight: Tensor) -> Tensor:
        ctx.basis, ctx.weight = bond_basis.expand(r, f, cutoff, exponent), weight
        return bond_basis.forward(ctx.basis, weight)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None, None, None, None]:
        return grad_length([grad_y], [ctx.weight], ctx.basis), None, None, None, None


@pytest.mark.parametrize(("cutoff", "exponent"), CUTOFFS)
@pytest.mark.parametrize("n", SIZES)
def test_values_and_products_are_the_formula_bond_by_bond(n: int, cutoff: float, exponent: int) -> None:
    r, f, weight = lengths(n, cutoff), frequencies(5), weights(5, 16)
    basis, expected = bond_basis.expand(r, f, cutoff, exponent), looped(r, f, cutoff, exponent)
    assert_equal_to_rounding(bond_basis.values(basis), expected)
    assert_equal_to_rounding(bond_basis.forward(basis, weight), expected @ weight)
    out = torch.empty(n, 16, dtype=torch.float64)
    assert bond_basis.forward(basis, weight, out=out) is out
    assert_equal_to_rounding(out, expected @ weight)


@pytest.mark.parametrize(("cutoff", "exponent"), CUTOFFS)
@pytest.mark.parametrize("n", [1, 63])
def test_backward_is_the_derivative(n: int, cutoff: float, exponent: int) -> None:
    # Third derivatives are of order (f/c)³ b W ≈ 200: 1e-10/6 · 200 = 3e-9 of truncation, 1e-16/1e-5 of rounding.
    r = lengths(n, cutoff).requires_grad_()
    given = r, frequencies(5), cutoff, exponent, weights(5, 16)
    assert torch.autograd.gradcheck(Product.apply, given, eps=1e-5, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(("cutoff", "exponent"), CUTOFFS)
@pytest.mark.parametrize("n", SIZES)
def test_backward_is_what_autograd_makes_of_the_formula_for_all_products_together(
    n: int, cutoff: float, exponent: int
) -> None:
    r, f, both = lengths(n, cutoff).requires_grad_(), frequencies(31), [weights(31, 64), weights(31, 128)]
    grads = [grad_like(r, weight) for weight in both]
    expected = torch.zeros_like(r)
    if n:
        products = [looped(r, f, cutoff, exponent) @ weight for weight in both]
        (expected,) = torch.autograd.grad(products, r, grads)
    assert_equal_to_rounding(grad_length(grads, both, bond_basis.expand(r.detach(), f, cutoff, exponent)), expected)


@pytest.mark.parametrize(("cutoff", "exponent"), CUTOFFS)
@pytest.mark.parametrize("n", SIZES)
def test_float32_loses_nothing_but_the_rounding_of_its_results(n: int, cutoff: float, exponent: int) -> None:
    """In float32 a phase of 100 would be wrong by 4e-6, and forces twenty times worse than all other roundings."""
    r, f = lengths(n, cutoff).requires_grad_(), frequencies(31, torch.float32)
    exact = looped(r, f.double(), cutoff, exponent)
    found = bond_basis.values(bond_basis.expand(r.detach(), f, cutoff, exponent))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact.detach().float(), rtol=2e-7, atol=1e-12)
    grad_basis = torch.randn(exact.shape, generator=torch.Generator().manual_seed(2))
    if n:
        (exact_grad,) = torch.autograd.grad(exact, r, grad_basis.double())
        given = r.detach(), f, cutoff, exponent
        assert_equal_to_rounding(reference.grad_length(grad_basis, *given), exact_grad)


def test_of_chosen_bonds_it_is_their_rows() -> None:
    r, f, weight, rows = lengths(63, 6.0), frequencies(31), weights(31, 64), torch.tensor([5, 0, 62, 17])
    basis = bond_basis.expand(r, f, 6.0, 8)
    some, expected = bond_basis.chosen(basis, rows), looped(r[rows], f, 6.0, 8)
    assert_equal_to_rounding(bond_basis.values(some), expected)
    assert_equal_to_rounding(bond_basis.forward(some, weight), expected @ weight)
    # What they have adds up with what all bonds have, row by row.
    grad, grad_some = bond_basis.new_grad(basis), bond_basis.new_grad(some)
    bond_basis.backward(grad_like(r, weight), basis, weight, grad=grad)
    bond_basis.backward(grad_like(r[rows], weight), some, weight, grad=grad_some)
    both = grad_like(r, weight)
    both[rows] += grad_like(r[rows], weight)
    together = bond_basis.grad_length(grad.index_add_(0, rows, grad_some), basis)
    assert_equal_to_rounding(together, grad_length([both], [weight], basis))


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
        return torch.stack([reference.grad_length(only, r, f, cutoff, exponent) for only in one_by_one])

    r = cutoff - delta
    values = reference.values(r, f, cutoff, exponent).abs().amax(1)
    first = slopes(r).abs().amax(0)
    second = ((slopes(r + 1e-6) - slopes(r - 1e-6)) / 2e-6).abs().amax(0)
    # Within 5 %: the next order is δ/c times p or f, up to 0.0013 · 100 relative, and has the sign that helps.
    assert values[1] / values[0] <= 1.05 / 8
    assert first[1] / first[0] <= 1.05 / 4
    assert second[1] / second[0] <= 1.05 / 2
    outside = torch.tensor([cutoff, cutoff + 1e-12, cutoff + 1], dtype=torch.float64)
    assert (reference.values(outside, f, cutoff, exponent) == 0).all()
    assert (slopes(outside) == 0).all()


def test_nothing_is_read_before_it_is_written(poisoned_memory: PoisonedMemory) -> None:
    r, f, weight = lengths(63, 6.0), frequencies(9), weights(9, 16)

    def compute() -> tuple[Tensor, Tensor]:
        basis = bond_basis.expand(r, f, 6.0, 8)
        y = bond_basis.forward(basis, weight)
        return y, grad_length([y], [weight], basis)

    for clean, poisoned in zip(compute(), poisoned_memory.run(compute), strict=True):
        assert clean.isfinite().all()
        assert torch.equal(clean, poisoned)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inputs_are_left_as_they_were(dtype: torch.dtype) -> None:
    r, f, weight = lengths(63, 6.0), frequencies(9, dtype), weights(9, 16, dtype)
    basis = bond_basis.expand(r, f, 6.0, 8)
    y = bond_basis.forward(basis, weight)
    before = r.clone(), f.clone(), weight.clone(), y.clone(), bond_basis.values(basis).clone()
    grad_length([y], [weight], basis)
    assert all(map(torch.equal, (r, f, weight, y, bond_basis.values(basis)), before))
