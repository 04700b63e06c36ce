"""The gated message, summed over segments: values, hand-derived gradients, blocks, memory, rounding."""

import importlib
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from fastchgnet_kernels import gated_message
from fastchgnet_kernels.gated_message import rows as rows_module
from tests.closeness import assert_equal_to_rounding, assert_no_worse_than_plain
from tests.conftest import PoisonedMemory
from tests.kernels.gated import (
    ARCHITECTURES,
    SIZES,
    Architecture,
    Case,
    assert_is_derivative,
    cast,
    make_case,
    memory,
    plain_message,
    tensors_of,
)


class Gradients(NamedTuple):
    table: Tensor
    x: Tensor | None
    weight: Tensor


class Result(NamedTuple):
    out: Tensor
    grad: Gradients


def run(case: Case, *, keep: bool = False) -> Result:
    """Forward, then backward with a seeded random gradient of the output."""
    out, kept = gated_message.forward(*case, keep=memory(keep))
    return Result(out, backward(case, cotangent(out), kept))


def backward(case: Case, grad_out: Tensor, kept: Any) -> Gradients:
    x = case.inputs[1]
    grad_x = None if x is None else torch.zeros_like(x)
    grad = gated_message.backward(grad_out, *case, grad_x=grad_x, kept=kept)
    return Gradients(grad.table, grad_x, grad.weight)


def run_plain(case: Case) -> Result:
    """The dense formula and what autograd makes of it."""
    leaves = [None if leaf is None else leaf.detach().clone().requires_grad_() for leaf in case.inputs]
    out = plain_message(case.with_inputs(*leaves))
    real = [leaf for leaf in leaves if leaf is not None]
    found = iter(torch.autograd.grad(out, real, cotangent(out), materialize_grads=True, allow_unused=True))
    return Result(out.detach(), Gradients(*(None if leaf is None else next(found) for leaf in leaves)))


def cotangent(out: Tensor) -> Tensor:
    return torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(out.dtype)


def pairs(one: Result, other: Result) -> list[tuple[Tensor, Tensor]]:
    return list(zip(tensors_of(one), tensors_of(other), strict=True))


def assert_same_bits(one: Result, other: Result) -> None:
    assert all(torch.equal(a, b) for a, b in pairs(one, other))


class GatedMessage(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, x: Tensor | None, weight: Tensor, case: Case, keep: bool) -> Tensor:
        ctx.case = case.with_inputs(table, x, weight)
        out, ctx.kept = gated_message.forward(*ctx.case, keep=memory(keep))
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        return *backward(ctx.case, grad_out.contiguous(), ctx.kept), None, None


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of about seven messages: many of them, the last one shorter, one segment longer than a block."""
    monkeypatch.setattr(rows_module, "BLOCK_ROWS", 7)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("n_messages", SIZES)
def test_values_and_gradients_are_those_of_the_dense_formula(n_messages: int, architecture: Architecture) -> None:
    case = make_case(n_messages, architecture)
    for found, expected in pairs(run(case), run_plain(case)):
        assert_equal_to_rounding(found, expected)


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "recomputed"])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_backward_is_the_derivative(architecture: Architecture, keep: bool, small_blocks: None) -> None:
    case = make_case(20, architecture, width=4)
    assert_is_derivative(lambda *inputs: GatedMessage.apply(*inputs, case, keep), *case.inputs)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_backward_of_a_single_message_is_the_derivative(architecture: Architecture) -> None:
    case = make_case(1, architecture, width=4)
    assert_is_derivative(lambda *inputs: GatedMessage.apply(*inputs, case, False), *case.inputs)


def test_the_gradient_of_x_is_added_to_what_is_there() -> None:
    case = make_case(63)
    out, kept = gated_message.forward(*case, keep=memory(True))
    alone = backward(case, cotangent(out), kept).x
    assert alone is not None
    there = torch.ones_like(alone)
    gated_message.backward(cotangent(out), *case, grad_x=there, kept=kept)
    assert_equal_to_rounding(there, 1 + alone)


def test_the_gradient_of_x_is_left_out_if_nobody_asks() -> None:
    case = make_case(63)
    out, _ = gated_message.forward(*case, keep=None)
    grad = gated_message.backward(cotangent(out), *case, grad_x=None, kept=None)
    assert torch.equal(grad.table, run(case).grad.table)
    assert torch.equal(grad.weight, run(case).grad.weight)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("n_messages", SIZES)
def test_kept_and_recomputed_activations_give_the_same_bits(
    n_messages: int, architecture: Architecture, small_blocks: None
) -> None:
    case = make_case(n_messages, architecture, dtype=torch.float32)
    assert_same_bits(run(case, keep=True), run(case, keep=False))


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("n_messages", SIZES)
def test_many_blocks_give_what_one_gives(
    n_messages: int, architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(n_messages, architecture)
    whole = run(case)
    monkeypatch.setattr(rows_module, "BLOCK_ROWS", 7)
    for blocks, one in pairs(run(case), whole):
        assert_equal_to_rounding(blocks, one)


def test_small_blocks_are_small(small_blocks: None) -> None:
    """That BLOCK_ROWS is what cuts the blocks: 256 messages make one block or, of at most 7 or one segment, many."""
    case = make_case(256)
    assert int(case.segments.ptr.diff().max()) > 7
    _, kept = gated_message.forward(*case, keep=memory(True))
    assert kept is not None
    assert len(kept) > 20


@pytest.mark.parametrize(
    "lengths", [[0, 0, 0], [], [5, 0, 0, 0, 0], [0, 0, 0, 0, 5], [1] * 15, [7, 7, 1], [30]], ids=str
)
def test_segments_of_any_lengths(lengths: list[int], small_blocks: None) -> None:
    case = make_case(sum(lengths), lengths=lengths)
    for found, expected in pairs(run(case), run_plain(case)):
        assert_equal_to_rounding(found, expected)
    assert (run(case).out[torch.tensor(lengths, dtype=torch.int64) == 0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layers", [1, 2])
def test_saturated_activations_are_right(layers: int, dtype: torch.dtype) -> None:
    """Pre-activations of the released models reach ±600, where exponentials over- or underflow."""
    case = make_case(63, Architecture(layers, norm=False, dense=False), width=16, dtype=dtype)
    case = case.with_inputs(300 * case.rows.table, None, case.weighting.table)
    assert case.rows.block(0, 63).abs().max() > 600
    exact = run_plain(cast(case, torch.float64))
    for found, plain, truth in zip(tensors_of(run(case)), tensors_of(run_plain(case)), tensors_of(exact), strict=True):
        assert found.isfinite().all()
        assert_no_worse_than_plain(found, plain, truth, floor=1e-6 if dtype == torch.float32 else 1e-13)


def test_neither_what_ran_before_nor_other_dtypes_and_sizes_make_a_difference() -> None:
    """Memory is used again: between two runs of one case, others of its memory are filled with other numbers."""
    small, large = make_case(63, dtype=torch.float32), make_case(256, width=64, dtype=torch.float32)
    first = run(small), run(small, keep=True)
    for other in (large, cast(small, torch.float64), cast(large, torch.float64), make_case(1), make_case(0)):
        run(other)
        run(other, keep=True)
    assert_same_bits(run(small), first[0])
    assert_same_bits(run(small, keep=True), first[1])


def test_memory_that_is_not_held_on_to_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(63)
    held = run(case), run(case, keep=True)
    monkeypatch.setattr(importlib.import_module("fastchgnet_kernels.gated_message.scratch"), "HELD_BYTES", 0)
    assert_same_bits(run(case), held[0])
    assert_same_bits(run(case, keep=True), held[1])


def test_results_stay_as_they_are_when_the_op_runs_again() -> None:
    case, other = make_case(63), make_case(255)
    result = run(case)
    before = [tensor.clone() for tensor in tensors_of(result)]
    run(other)
    run(other, keep=True)
    assert all(map(torch.equal, tensors_of(result), before))


def test_a_table_row_that_feeds_no_message_has_no_gradient() -> None:
    case = make_case(63)
    incidence = case.rows.incidence
    unused = incidence.messages_ptr.diff() == 0
    assert unused[-2:].all()
    assert (run(case).grad.table[unused] == 0).all()


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "recomputed"])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("n_messages", SIZES)
def test_nothing_is_read_before_it_is_written(
    n_messages: int, architecture: Architecture, keep: bool, small_blocks: None, poisoned_memory: PoisonedMemory
) -> None:
    case = make_case(n_messages, architecture)
    clean = run(case, keep=keep)
    assert_same_bits(poisoned_memory.run(lambda: run(case, keep=keep)), clean)
    assert all(tensor.isfinite().all() for tensor in tensors_of(clean))
    assert n_messages == 0 or poisoned_memory.shapes


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("n_messages", SIZES)
def test_float32_is_no_worse_than_plain(n_messages: int, architecture: Architecture) -> None:
    case = make_case(n_messages, architecture, width=64, dtype=torch.float32)
    plain, exact = run_plain(case), run_plain(cast(case, torch.float64))
    for fused, ours, truth in zip(tensors_of(run(case)), tensors_of(plain), tensors_of(exact), strict=True):
        assert_no_worse_than_plain(fused, ours, truth)


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "recomputed"])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_the_inputs_are_left_as_they_were_and_a_second_backward_gives_the_same(
    architecture: Architecture, keep: bool
) -> None:
    case = make_case(63, architecture)
    before = [tensor.clone() for tensor in tensors_of(case)]
    out, kept = gated_message.forward(*case, keep=memory(keep))
    grad_out = cotangent(out)
    first, second = backward(case, grad_out, kept), backward(case, grad_out, kept)
    assert all(map(torch.equal, tensors_of(first), tensors_of(second)))
    assert all(map(torch.equal, tensors_of(case), before))
    assert torch.equal(grad_out, cotangent(out))


def test_scratch_memory_stays_bounded_and_what_is_in_use_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("fastchgnet_kernels.gated_message.scratch")
    monkeypatch.setattr(module, "TOTAL_BYTES", 10_000)
    memory, like = module.Scratch(), torch.zeros(0)
    first = memory("first", 10, 10, like).fill_(7)
    for n in range(200):
        memory.under(n)("more", 10, 10, like).fill_(n)
        assert sum(held.nbytes for held in memory._buffers.values()) <= 10_000
    assert (first == 7).all()
