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
from tests.kernels.test_bond_basis import CUTOFFS, frequencies, lengths, looped


def grad_like(r: Tensor, f: Tensor) -> Tensor:
    return torch.randn(len(r), len(f), generator=torch.Generator().manual_seed(1)).to(f.dtype)


def run(r: Tensor, f: Tensor, cutoff: float, exponent: int) -> list[Tensor]:
    """Basis, slope and gradient by the kernels."""
    given = r, f, cutoff, exponent
    return [bond_basis.forward(*given), bond_basis.slope(*given), bond_basis.backward(grad_like(r, f), *given)]


def defined(r: Tensor, f: Tensor, cutoff: float, exponent: int) -> list[Tensor]:
    """The same by the definition."""
    given = r, f, cutoff, exponent
    return [reference.forward(*given), reference.slope(*given), reference.backward(grad_like(r, f), *given)]


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
def test_forward_is_the_formula_bond_by_bond(cutoff: float, exponent: int) -> None:
    r, f = lengths(63, cutoff), frequencies(5)
    assert_equal_to_rounding(bond_basis.forward(r, f, cutoff, exponent), looped(r, f, cutoff, exponent))


def test_released_frequencies_are_as_accurate_as_the_kernel_says() -> None:
    checkpoint = load_checkpoint("0.3.0")
    p, config = checkpoint.parameters, checkpoint.config
    for f, cutoff in [(p.atom_frequencies, config.atom_cutoff), (p.bond_frequencies, config.bond_cutoff)]:
        r = torch.linspace(0.5, cutoff, 768, dtype=torch.float64)
        exact = defined(r, f.double(), cutoff, config.envelope_exponent)
        for ours, theirs in zip(run(r, f.float(), cutoff, config.envelope_exponent), exact, strict=True):
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
