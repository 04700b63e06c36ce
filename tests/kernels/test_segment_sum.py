"""Sums of gathered rows over CSR segments."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fastchgnet_kernels import segment_sum
from tests.closeness import assert_equal_to_rounding, assert_no_worse_than_plain
from tests.conftest import PoisonedMemory
from tests.kernels.gated import SIZES, lengths_with_gaps

N_ROWS, WIDTH = 17, 6


def inputs(n_entries: int, width: int = WIDTH, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """x, index and ptr; some rows are gathered often, some never, some segments are empty."""
    random = torch.Generator().manual_seed(n_entries)
    x = torch.randn(N_ROWS, width, generator=random).to(dtype)
    index = torch.randint(N_ROWS - 2, (n_entries,), generator=random, dtype=torch.int32)
    ptr = torch.tensor([0, *lengths_with_gaps(n_entries)]).cumsum(0).to(torch.int32)
    assert ptr[-1] == n_entries
    return x, index, ptr


def looped(x: Tensor, index: Tensor, ptr: Tensor) -> Tensor:
    """The definition, entry by entry."""
    sums = []
    for segment in range(len(ptr) - 1):
        total = torch.zeros_like(x[0])
        for j in range(int(ptr[segment]), int(ptr[segment + 1])):
            total = total + x[int(index[j])]
        sums.append(total)
    return torch.stack(sums)


class SegmentSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, ptr: Tensor) -> Tensor:
        ctx.rest = index, ptr, x.shape[0]
        return segment_sum.forward(x, index, ptr)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None, None]:
        return segment_sum.backward(grad_out, *ctx.rest), None, None


@pytest.mark.parametrize("n_entries", SIZES)
def test_forward_is_the_sum_entry_by_entry(n_entries: int) -> None:
    x, index, ptr = inputs(n_entries)
    assert_equal_to_rounding(segment_sum.forward(x, index, ptr), looped(x, index, ptr), roundings=256)


@pytest.mark.parametrize("n_entries", SIZES)
def test_empty_segments_at_start_in_the_middle_and_at_the_end_are_zero(n_entries: int) -> None:
    x, index, ptr = inputs(n_entries)
    empty = ptr.diff() == 0
    assert {0, 3, len(empty) - 1} <= set(empty.nonzero()[:, 0].tolist())
    out = segment_sum.forward(x, index, ptr)
    assert (out[empty] == 0).all()
    assert (out[~empty] != 0).all()


def test_there_may_be_no_segments_and_no_rows() -> None:
    none, only_zero = torch.zeros(0, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    assert segment_sum.forward(torch.ones(3, WIDTH), none, only_zero).shape == (0, WIDTH)
    sums = segment_sum.forward(torch.ones(0, WIDTH), none, only_zero.expand(4).contiguous())
    assert torch.equal(sums, torch.zeros(3, WIDTH))
    assert torch.equal(segment_sum.backward(torch.ones(0, WIDTH), none, only_zero, 3), torch.zeros(3, WIDTH))


@pytest.mark.parametrize("n_entries", SIZES[1:])
def test_backward_is_the_derivative(n_entries: int) -> None:
    x, index, ptr = inputs(n_entries, width=2)
    # The op is linear: the difference quotient is exact but for rounding, 1e-16 / 1e-6 a term.
    assert torch.autograd.gradcheck(SegmentSum.apply, (x.requires_grad_(), index, ptr), atol=1e-7, rtol=0)


@pytest.mark.parametrize("n_entries", SIZES)
def test_backward_is_what_autograd_makes_of_the_loops(n_entries: int) -> None:
    x, index, ptr = inputs(n_entries)
    out = looped(x.requires_grad_(), index, ptr)
    grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.zeros_like(x)
    if n_entries:
        (expected,) = torch.autograd.grad(out, x, grad_out)
    assert_equal_to_rounding(segment_sum.backward(grad_out, index, ptr, N_ROWS), expected, roundings=256)


@pytest.mark.parametrize("n_entries", SIZES)
def test_backward_is_the_forward_over_the_transposed_incidence(n_entries: int) -> None:
    _, index, ptr = inputs(n_entries)
    grad_out = torch.randn(len(ptr) - 1, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    segment = torch.repeat_interleave(ptr.diff())
    transposed = segment[index.argsort(stable=True)].to(torch.int32)
    transposed_ptr = torch.tensor([int((index < row).sum()) for row in range(N_ROWS + 1)], dtype=torch.int32)
    assert_equal_to_rounding(
        segment_sum.backward(grad_out, index, ptr, N_ROWS),
        segment_sum.forward(grad_out, transposed, transposed_ptr),
        roundings=256,
    )


@pytest.mark.parametrize("n_entries", SIZES)
def test_float32_is_no_worse_than_plain(n_entries: int) -> None:
    x, index, ptr = inputs(n_entries, width=64, dtype=torch.float32)
    exact = looped(x.double(), index, ptr)
    assert_no_worse_than_plain(segment_sum.forward(x, index, ptr), looped(x, index, ptr), exact)
    grad_out = torch.randn(exact.shape, generator=torch.Generator().manual_seed(3))
    segment = torch.repeat_interleave(ptr.diff())
    plain = torch.stack([grad_out[segment[index == row]].sum(0) for row in range(N_ROWS)])
    exact = torch.stack([grad_out[segment[index == row]].double().sum(0) for row in range(N_ROWS)])
    assert_no_worse_than_plain(segment_sum.backward(grad_out, index, ptr, N_ROWS), plain, exact)


@pytest.mark.parametrize("n_entries", SIZES)
def test_nothing_is_read_before_it_is_written(n_entries: int, poisoned_memory: PoisonedMemory) -> None:
    x, index, ptr = inputs(n_entries)

    def compute() -> tuple[Tensor, Tensor]:
        out = segment_sum.forward(x, index, ptr)
        return out, segment_sum.backward(out, index, ptr, N_ROWS)

    for clean, poisoned in zip(compute(), poisoned_memory.run(compute), strict=True):
        assert clean.isfinite().all()
        assert torch.equal(clean, poisoned)


def test_the_inputs_are_left_as_they_were() -> None:
    given = inputs(63)
    before = [tensor.clone() for tensor in given]
    segment_sum.backward(segment_sum.forward(*given), *given[1:], N_ROWS)
    assert all(map(torch.equal, given, before))
