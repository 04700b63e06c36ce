"""The gated update: the gated message row by row, without weights or sum."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from fastchgnet_kernels import gated_update
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
    plain_update,
    tensors_of,
)


class Result(NamedTuple):
    out: Tensor
    grad_table: Tensor
    grad_x: Tensor | None


def run(case: Case, *, keep: bool = False) -> Result:
    """Forward, then backward with a seeded random gradient of the output."""
    out = case.rows.table.new_zeros(case.n_messages, case.width)
    kept = gated_update.forward(case.rows, case.weights, out=out, keep=memory(keep))
    return Result(out, *backward(case, cotangent(out), kept))


def backward(case: Case, grad_out: Tensor, kept: Any) -> tuple[Tensor, Tensor | None]:
    x = case.inputs[1]
    grad_x = None if x is None else torch.zeros_like(x)
    return gated_update.backward(grad_out, case.rows, case.weights, grad_x=grad_x, kept=kept), grad_x


def run_plain(case: Case) -> Result:
    """The dense formula and what autograd makes of it."""
    table, x, weight = (None if leaf is None else leaf.detach().clone().requires_grad_() for leaf in case.inputs)
    out = plain_update(case.with_inputs(table, x, weight).rows, case.weights)
    real = [leaf for leaf in (table, x) if leaf is not None]
    grads = torch.autograd.grad(out, real, cotangent(out), materialize_grads=True, allow_unused=True)
    return Result(out.detach(), grads[0], None if x is None else grads[1])


def cotangent(out: Tensor) -> Tensor:
    return torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(out.dtype)


def pairs(one: Result, other: Result) -> list[tuple[Tensor, Tensor]]:
    return list(zip(tensors_of(one), tensors_of(other), strict=True))


class GatedUpdate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, x: Tensor | None, case: Case, keep: bool) -> Tensor:
        ctx.case = case.with_inputs(table, x, case.weighting.table)
        out = table.new_zeros(case.n_messages, case.width)
        ctx.kept = gated_update.forward(ctx.case.rows, case.weights, out=out, keep=memory(keep))
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        return *backward(ctx.case, grad_out.contiguous(), ctx.kept), None, None


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "BLOCK_ROWS", 7)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("n_messages", SIZES)
def test_values_and_gradients_are_those_of_the_dense_formula(n_messages: int, architecture: Architecture) -> None:
    case = make_case(n_messages, architecture)
    for found, expected in pairs(run(case), run_plain(case)):
        assert_equal_to_rounding(found, expected)


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "recomputed"])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("n_messages", [1, 20])
def test_backward_is_the_derivative(
    n_messages: int, architecture: Architecture, keep: bool, small_blocks: None
) -> None:
    case = make_case(n_messages, architecture, width=4)
    assert_is_derivative(lambda *inputs: GatedUpdate.apply(*inputs, case, keep), *case.inputs[:2])


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "recomputed"])
def test_the_update_is_added_to_what_is_there(keep: bool) -> None:
    case = make_case(63)
    out = torch.ones(63, case.width, dtype=torch.float64)
    gated_update.forward(case.rows, case.weights, out=out, keep=memory(keep))
    assert_equal_to_rounding(out, 1 + plain_update(case.rows, case.weights))


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "recomputed"])
@pytest.mark.parametrize("layers", [1, 2])
def test_the_gradient_of_x_may_be_added_to_the_gradient_of_the_output_itself(
    layers: int, keep: bool, small_blocks: None
) -> None:
    """As for a residual, out = x + update(x): there x is as wide as the output."""
    case = make_case(63, Architecture(layers=layers), width=5)
    out = torch.zeros(63, 5, dtype=torch.float64)
    kept = gated_update.forward(case.rows, case.weights, out=out, keep=memory(keep))
    grad_table, grad_x = backward(case, cotangent(out), kept)
    shared = cotangent(out)
    grad_table_of_shared = gated_update.backward(shared, case.rows, case.weights, grad_x=shared, kept=kept)
    assert torch.equal(grad_table_of_shared, grad_table)
    assert_equal_to_rounding(shared, cotangent(out) + grad_x)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("n_messages", SIZES)
def test_kept_and_recomputed_activations_give_the_same_bits(
    n_messages: int, architecture: Architecture, small_blocks: None
) -> None:
    case = make_case(n_messages, architecture, dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in pairs(run(case, keep=True), run(case, keep=False)))


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
    case = make_case(256)
    out = torch.zeros(256, case.width, dtype=torch.float64)
    kept = gated_update.forward(case.rows, case.weights, out=out, keep=memory(True))
    assert kept is not None
    assert len(kept) == 37  # 36 · 7 + 4


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "recomputed"])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("n_messages", SIZES)
def test_nothing_is_read_before_it_is_written(
    n_messages: int, architecture: Architecture, keep: bool, small_blocks: None, poisoned_memory: PoisonedMemory
) -> None:
    case = make_case(n_messages, architecture)
    clean = run(case, keep=keep)
    poisoned = poisoned_memory.run(lambda: run(case, keep=keep))
    assert all(torch.equal(a, b) for a, b in pairs(poisoned, clean))
    assert all(tensor.isfinite().all() for tensor in tensors_of(clean))
    assert n_messages == 0 or poisoned_memory.shapes


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("n_messages", SIZES)
def test_float32_is_no_worse_than_plain(n_messages: int, architecture: Architecture) -> None:
    case = make_case(n_messages, architecture, width=64, dtype=torch.float32)
    plain, exact = run_plain(case), run_plain(cast(case, torch.float64))
    for fused, ours, truth in zip(tensors_of(run(case)), tensors_of(plain), tensors_of(exact), strict=True):
        assert_no_worse_than_plain(fused, ours, truth)


def test_results_stay_as_they_are_when_the_op_runs_again() -> None:
    case, other = make_case(63), make_case(255)
    result = run(case)
    before = [tensor.clone() for tensor in tensors_of(result)]
    run(other)
    run(other, keep=True)
    assert all(map(torch.equal, tensors_of(result), before))


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "recomputed"])
def test_the_inputs_are_left_as_they_were_and_a_second_backward_gives_the_same(keep: bool) -> None:
    case = make_case(63)
    before = [tensor.clone() for tensor in tensors_of(case)]
    out = torch.zeros(63, case.width, dtype=torch.float64)
    kept = gated_update.forward(case.rows, case.weights, out=out, keep=memory(keep))
    grad_out = cotangent(out)
    first, second = backward(case, grad_out, kept), backward(case, grad_out, kept)
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, tensors_of(case), before))
    assert torch.equal(grad_out, cotangent(out))
