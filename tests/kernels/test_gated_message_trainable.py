"""The gated message under autograd: values, tangents, and the gradients of both, weights included."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from fastchgnet_kernels.gated_message import GatedWeights, trainable
from fastchgnet_kernels.gated_message.trainable import Dual, Structure, gated_message
from tests.closeness import assert_equal_to_rounding, assert_no_worse_than_plain
from tests.conftest import PoisonedMemory
from tests.kernels.gated import (
    ARCHITECTURES,
    Architecture,
    Case,
    cast,
    make_case,
    plain_message,
    plain_update,
    tensors_of,
)

SIZES = (0, 1, 63, 255)
FULL = Architecture()


class Leaves(NamedTuple):
    """Everything that the op can be differentiated by."""

    table: Dual
    x: Dual
    x_weight: Tensor | None
    weight: Dual
    weights: GatedWeights

    def flat(self) -> list[Tensor | None]:
        return [*self.table, *self.x, self.x_weight, *self.weight, *self.weights]


class Problem(NamedTuple):
    """Leaves, what connects them, and whether messages are weighted and summed."""

    case: Case
    leaves: Leaves
    summed: bool

    @property
    def structure(self) -> Structure:
        incidence = self.case.rows.incidence
        if not self.summed:
            return Structure(incidence, None, None)
        return Structure(incidence, self.case.weighting.incidence, self.case.segments)

    def ours(self, leaves: Leaves) -> Dual:
        weight = leaves.weight if self.summed else None
        x = None if leaves.x_weight is None else leaves.x
        leaves = without_means(leaves)
        return gated_message(leaves.table, x, leaves.x_weight, leaves.weights, weight, self.structure)

    def plain(self, leaves: Leaves) -> Dual:
        """The dense formula, and its derivative along the tangents: autograd's, of how its gradient depends on g."""
        inputs = [leaves.table, leaves.x, leaves.weight]
        out = self._dense(leaves)
        tangents = [x.tangent for x in inputs]
        if leaves.table.tangent is None:
            return Dual(out, None)
        values = [x.value for x in inputs if x.tangent is not None]
        g = torch.zeros_like(out, requires_grad=True)
        pulled = torch.autograd.grad(out, values, g, create_graph=True, materialize_grads=True, allow_unused=True)
        along = sum((a * b).sum() for a, b in zip(pulled, [t for t in tangents if t is not None], strict=True))
        (tangent,) = torch.autograd.grad(along, g, create_graph=True, materialize_grads=True, allow_unused=True)
        return Dual(out, tangent)

    def _dense(self, leaves: Leaves) -> Tensor:
        case, x = self.case, leaves.x.value
        dense = None if case.rows.dense is None else case.rows.dense._replace(x=x, weight=leaves.x_weight)
        rows = case.rows._replace(table=leaves.table.value, dense=dense)
        weighting = case.weighting._replace(table=leaves.weight.value)
        case = case._replace(rows=rows, weights=leaves.weights, weighting=weighting)
        return plain_message(case) if self.summed else plain_update(case.rows, case.weights)


class Result(NamedTuple):
    out: Dual
    grad: tuple[Tensor | None, ...]  # in the order of the leaves


def make_problem(
    n: int,
    architecture: Architecture = FULL,
    *,
    tangents: bool = True,
    summed: bool = True,
    **options: Any,
) -> Problem:
    case = make_case(n, architecture, **options)
    random = torch.Generator().manual_seed(n)

    def dual(x: Tensor | None) -> Dual:
        if x is None or not tangents:
            return Dual(x, None)
        return Dual(x, torch.randn(x.shape, generator=random).to(x.dtype))

    x_weight = None if case.rows.dense is None else case.rows.dense.weight
    leaves = Leaves(dual(case.inputs[0]), dual(case.inputs[1]), x_weight, dual(case.inputs[2]), case.weights)
    return Problem(case, leaves, summed)


def without_means(leaves: Leaves) -> Leaves:
    """Where a LayerNorm follows, what is linear before it has no means: the op relies on it."""
    weights = leaves.weights
    if weights.scale is None:
        return leaves
    if weights.second is not None and weights.second_bias is not None:
        weights = weights._replace(second=centred(weights.second), second_bias=centred(weights.second_bias))
        return leaves._replace(weights=weights)
    table = Dual(*(None if x is None else centred_halves(x) for x in leaves.table))
    x_weight = None if leaves.x_weight is None else centred_halves(leaves.x_weight)
    return leaves._replace(table=table, x_weight=x_weight)


def centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


def centred_halves(x: Tensor) -> Tensor:
    return torch.cat([centred(half) for half in x.chunk(2, 1)], 1)


def regrouped(flat: list[Tensor | None]) -> Leaves:
    return Leaves(Dual(*flat[:2]), Dual(*flat[2:4]), flat[4], Dual(*flat[5:7]), GatedWeights(*flat[7:]))


def run(problem: Problem, *, plain: bool = False) -> Result:
    """Forward, then the gradients of Σ g out + Σ q out_dot with seeded g and q."""
    flat = [None if x is None else x.detach().clone().requires_grad_() for x in problem.leaves.flat()]
    out = (problem.plain if plain else problem.ours)(regrouped(flat))
    real = [x for x in flat if x is not None]
    outputs = [x for x in out if x is not None]
    grads = torch.autograd.grad(outputs, real, cotangents(outputs), materialize_grads=True, allow_unused=True)
    given = iter(grads)
    return Result(
        Dual(*(None if x is None else x.detach() for x in out)), tuple(x if x is None else next(given) for x in flat)
    )


def cotangents(outputs: list[Tensor]) -> list[Tensor]:
    random = torch.Generator().manual_seed(9)
    return [torch.randn(x.shape, generator=random).to(x.dtype) for x in outputs]


def pairs(one: Result, other: Result) -> list[tuple[Tensor, Tensor]]:
    return list(zip(tensors_of(one), tensors_of(other), strict=True))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of about seven messages: many of them, the last one shorter, one segment longer than a block."""
    monkeypatch.setattr(trainable, "BLOCK_ROWS", 7)


tangents = pytest.mark.parametrize("tangents", [True, False], ids=["with tangents", "values only"])
summed = pytest.mark.parametrize("summed", [True, False], ids=["summed", "row by row"])
architectures = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)


@summed
@tangents
@architectures
@pytest.mark.parametrize("n", SIZES)
def test_values_tangents_and_gradients_are_those_of_autograd(
    n: int, architecture: Architecture, tangents: bool, summed: bool, small_blocks: None
) -> None:
    problem = make_problem(n, architecture, tangents=tangents, summed=summed)
    for found, expected in pairs(run(problem), run(problem, plain=True)):
        assert_equal_to_rounding(found, expected)


@summed
@tangents
@architectures
def test_gradients_are_difference_quotients(
    architecture: Architecture, tangents: bool, summed: bool, small_blocks: None
) -> None:
    """Truncation and rounding as in `assert_is_derivative`, one order of derivatives higher: ten times as large."""
    problem = make_problem(9, architecture, tangents=tangents, summed=summed, width=4)
    flat = problem.leaves.flat()

    def compute(*values: Tensor) -> tuple[Tensor, ...]:
        given = iter(values)
        out = problem.ours(regrouped([None if x is None else next(given) for x in flat]))
        return tuple(x for x in out if x is not None)

    real = [x.clone().requires_grad_() for x in flat if x is not None]
    assert torch.autograd.gradcheck(compute, real, eps=1e-5, atol=1e-6, rtol=1e-5, fast_mode=True)


def test_it_refuses_to_be_differentiated_twice() -> None:
    """Tangents are how second derivatives are taken; a second backward must not pass for zero."""
    problem = make_problem(9)
    flat = [None if x is None else x.clone().requires_grad_() for x in problem.leaves.flat()]
    out = problem.ours(regrouped(flat)).value
    (grad,) = torch.autograd.grad(out.square().sum(), flat[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("lengths", [[0, 0, 0], [], [5, 0, 0, 0, 0], [0, 0, 0, 0, 5], [7, 7, 1], [30]], ids=str)
def test_segments_of_any_lengths(lengths: list[int], small_blocks: None) -> None:
    problem = make_problem(sum(lengths), lengths=lengths)
    found = run(problem)
    for ours, expected in pairs(found, run(problem, plain=True)):
        assert_equal_to_rounding(ours, expected)
    empty = torch.tensor(lengths, dtype=torch.int64) == 0
    assert found.out.tangent is not None
    assert (found.out.value[empty] == 0).all()
    assert (found.out.tangent[empty] == 0).all()


@architectures
def test_many_blocks_give_what_one_gives(architecture: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem(255, architecture)
    whole = run(problem)
    monkeypatch.setattr(trainable, "BLOCK_ROWS", 7)
    assert len(list(trainable._blocks(problem.structure))) > 20
    for blocks, one in pairs(run(problem), whole):
        assert_equal_to_rounding(blocks, one)


@summed
@tangents
@architectures
def test_activations_that_are_kept_and_those_computed_again_give_the_same_bits(
    architecture: Architecture, tangents: bool, summed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem(255, architecture, tangents=tangents, summed=summed)
    kept = run(problem)
    monkeypatch.setattr(trainable, "KEEP_BYTES", 0)
    for again, first in pairs(run(problem), kept):
        assert torch.equal(again, first)


@tangents
@architectures
def test_float32_is_no_worse_than_plain(architecture: Architecture, tangents: bool) -> None:
    problem = make_problem(255, architecture, tangents=tangents, width=64, dtype=torch.float32)
    exact = problem._replace(case=cast(problem.case, torch.float64), leaves=cast(problem.leaves, torch.float64))
    results = run(problem), run(problem, plain=True), run(exact, plain=True)
    for fused, plain, truth in zip(*(tensors_of(result) for result in results), strict=True):
        assert_no_worse_than_plain(fused, plain, truth)


@summed
@tangents
@architectures
def test_nothing_is_read_before_it_is_written(
    architecture: Architecture, tangents: bool, summed: bool, small_blocks: None, poisoned_memory: PoisonedMemory
) -> None:
    problem = make_problem(63, architecture, tangents=tangents, summed=summed)
    clean = run(problem)
    assert all(map(torch.equal, tensors_of(poisoned_memory.run(lambda: run(problem))), tensors_of(clean)))
    assert all(tensor.isfinite().all() for tensor in tensors_of(clean))
    assert poisoned_memory.shapes


@pytest.mark.parametrize("layers", [1, 2])
def test_saturated_activations_are_right(layers: int) -> None:
    """Pre-activations of the released models reach ±600, where exponentials over- or underflow."""
    problem = make_problem(63, Architecture(layers, norm=False, dense=False), width=16, dtype=torch.float32)
    value, tangent = problem.leaves.table
    problem = problem._replace(leaves=problem.leaves._replace(table=Dual(300 * value, tangent)))
    exact = problem._replace(case=cast(problem.case, torch.float64), leaves=cast(problem.leaves, torch.float64))
    results = run(problem), run(problem, plain=True), run(exact, plain=True)
    for fused, plain, truth in zip(*(tensors_of(result) for result in results), strict=True):
        assert fused.isfinite().all()
        assert_no_worse_than_plain(fused, plain, truth)


def test_a_gradient_that_is_one_number_for_all_is_taken_as_such() -> None:
    """What `.sum().backward()` hands over is a single number in memory, which must not be written to."""
    problem = make_problem(63, summed=False)
    out = problem.ours(regrouped(list(leaves := [x.clone().requires_grad_() for x in tensors_of(problem.leaves)])))
    outputs = [x for x in out if x is not None]
    one = torch.ones((), dtype=torch.float64)
    found = torch.autograd.grad(
        outputs,
        leaves,
        [one.expand(x.shape) for x in outputs],
        retain_graph=True,
        materialize_grads=True,
        allow_unused=True,
    )
    expected = torch.autograd.grad(
        outputs, leaves, [torch.ones_like(x) for x in outputs], materialize_grads=True, allow_unused=True
    )
    assert all(map(torch.equal, found, expected))
    assert one == 1


def test_the_inputs_are_left_as_they_were() -> None:
    problem = make_problem(63)
    before = [tensor.clone() for tensor in tensors_of(problem.leaves)]
    first, second = run(problem), run(problem)
    assert all(map(torch.equal, tensors_of(first), tensors_of(second)))
    assert all(map(torch.equal, tensors_of(problem.leaves), before))


def test_where_nobody_asks_for_a_gradient_of_the_tangent_the_value_alone_is_differentiated() -> None:
    problem = make_problem(63)
    flat = [x.clone().requires_grad_() for x in tensors_of(problem.leaves)]
    with_tangent = problem.ours(regrouped(list(flat))).value
    values = [flat[0], flat[2], *flat[4:6], *flat[7:]]
    found = torch.autograd.grad(with_tangent.sum(), values)
    bare = make_problem(63, tangents=False)
    leaves = [None if x is None else x.clone().requires_grad_() for x in bare.leaves.flat()]
    expected = torch.autograd.grad(bare.ours(regrouped(leaves)).value.sum(), [x for x in leaves if x is not None])
    for ours, theirs in zip(found, expected, strict=True):
        assert_equal_to_rounding(ours, theirs)
