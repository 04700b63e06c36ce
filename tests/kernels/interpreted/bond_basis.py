"""The radial basis by its kernels, run by Triton's interpreter, against the formula and the definition in float64."""

import pytest
import torch
from torch import Tensor

from ase_fastchgnet.model.checkpoint import load_checkpoint
from fastchgnet_kernels import bond_basis
from fastchgnet_kernels.bond_basis import reference
from tests.closeness import assert_equal_to_rounding, assert_no_worse_than_plain
from tests.conftest import PoisonedMemory
from tests.kernels.gated import SIZES
from tests.kernels.test_bond_basis import CUTOFFS, frequencies, grad_length, grad_like, lengths, looped, weights


def run(r: Tensor, f: Tensor, cutoff: float, exponent: int) -> list[Tensor]:
    """Basis, slope, products with two weights, and the gradient of lengths by all of them, by the kernels."""
    both = [weights(len(f), m, f.dtype) for m in (64, 128)]
    basis = bond_basis.expand(r, f, cutoff, exponent)
    assert basis.values is None
    products = [bond_basis.forward(basis, weight) for weight in both]
    grad = grad_length([grad_like(r, weight) for weight in both], both, basis)
    return [bond_basis.values(basis), bond_basis.slope(r, f, cutoff, exponent), *products, grad]


def defined(r: Tensor, f: Tensor, cutoff: float, exponent: int) -> list[Tensor]:
    """The same by the definition."""
    both, given = [weights(len(f), m, f.dtype) for m in (64, 128)], (r, f, cutoff, exponent)
    values, slope = reference.values(*given), reference.slope(*given)
    grad_basis = torch.stack([grad_like(r, weight) @ weight.T for weight in both]).sum(0)
    return [values, slope, *(values @ weight for weight in both), reference.grad_length(grad_basis, *given)]


@pytest.mark.parametrize("n", SIZES)
def test_float64_is_the_definition(n: int, poisoned_memory: PoisonedMemory) -> None:
    given = lengths(n, 6.0), frequencies(31), 6.0, 8
    found = poisoned_memory.run(lambda: run(*given))
    for ours, exact in zip(found, defined(*given), strict=True):
        # The phase, up to 100, is rounded twice; the slope multiplies that by a frequency, as it does itself.
        assert_equal_to_rounding(ours, exact, roundings=400)


@pytest.mark.parametrize("n", SIZES)
def test_float32_is_no_worse_than_plain(n: int, poisoned_memory: PoisonedMemory) -> None:
    given = lengths(n, 6.0), frequencies(31, torch.float32), 6.0, 8
    found = poisoned_memory.run(lambda: run(*given))
    for ours, plain, exact in zip(
        found, defined(*given), defined(given[0], given[1].double(), *given[2:]), strict=True
    ):
        assert_no_worse_than_plain(ours, plain, exact)


@pytest.mark.parametrize(("cutoff", "exponent"), CUTOFFS)
def test_values_and_products_are_the_formula_bond_by_bond(cutoff: float, exponent: int) -> None:
    r, f, weight = lengths(63, cutoff), frequencies(5), weights(5, 16)
    basis, expected = bond_basis.expand(r, f, cutoff, exponent), looped(r, f, cutoff, exponent)
    assert_equal_to_rounding(bond_basis.values(basis), expected)
    assert_equal_to_rounding(bond_basis.forward(basis, weight), expected @ weight)


def test_of_chosen_bonds_it_is_their_rows() -> None:
    r, f, weight, rows = lengths(63, 6.0), frequencies(31), weights(31, 64), torch.tensor([5, 0, 62, 17])
    some = bond_basis.chosen(bond_basis.expand(r, f, 6.0, 8), rows)
    assert_equal_to_rounding(bond_basis.forward(some, weight), looped(r[rows], f, 6.0, 8) @ weight)


def test_released_frequencies_are_as_accurate_as_the_kernel_says() -> None:
    checkpoint = load_checkpoint("0.3.0")
    p, config = checkpoint.parameters, checkpoint.config
    for f, cutoff in [(p.atom_frequencies, config.atom_cutoff), (p.bond_frequencies, config.bond_cutoff)]:
        r = torch.linspace(0.5, cutoff, 768, dtype=torch.float64)
        exact = defined(r, f.double(), cutoff, config.envelope_exponent)[:2]  # values and slopes
        for ours, theirs in zip(run(r, f.float(), cutoff, config.envelope_exponent)[:2], exact, strict=True):
            assert (ours - theirs).abs().max() <= 2.5e-7 * theirs.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("cutoff", "exponent"), CUTOFFS)
def test_all_vanishes_smoothly_at_the_cutoff(cutoff: float, exponent: int, dtype: torch.dtype) -> None:
    f = frequencies(9, dtype)
    outside = torch.tensor([cutoff, cutoff + 1e-12, cutoff + 1], dtype=torch.float64)
    for value in run(outside, f, cutoff, exponent):
        assert (value == 0).all()
    # Just below, u = K (1-x)³ with K ≤ 120: what cancels in it leaves its rounding, 1e-14 of a slope of order f/c.
    for value in run(outside[:1] - 1e-9, f, cutoff, exponent):
        assert value.abs().max() < 1e-11


def test_slopes_can_be_differentiated_by_frequencies() -> None:
    r = lengths(63, 6.0)
    f, same = frequencies(9).requires_grad_(), frequencies(9).requires_grad_()
    bond_basis.slope(r, f, 6.0, 8).square().sum().backward()
    reference.slope(r, same, 6.0, 8).square().sum().backward()
    assert f.grad is not None
    assert torch.equal(f.grad, same.grad)
