"""The gated message's kernel, run by Triton's interpreter, against the dense formula."""

import pytest
import torch
from torch import Tensor

from fastchgnet_kernels import gated_message
from fastchgnet_kernels._launch import INTERPRETED
from tests.closeness import assert_equal_to_rounding, assert_no_worse_than_plain
from tests.conftest import PoisonedMemory
from tests.kernels.gated import (
    ARCHITECTURES,
    SIZES,
    Architecture,
    Case,
    cast,
    counts,
    make_case,
    plain_message,
    silu,
    tensors_of,
)
from tests.kernels.test_gated_message import run, run_plain

BOND_CONV = Architecture(layers=2, norm=True, dense=True)
WIDTH = 16  # the least that a matrix product of Triton takes


def test_it_is_the_kernel_that_runs() -> None:
    assert INTERPRETED
    _, kept = gated_message.forward(*make_case(3, width=WIDTH), keep=gated_message.Scratch())
    assert kept is None  # plain torch would have kept activations


@pytest.mark.parametrize(
    ("architecture", "n"),
    [
        *(
            (architecture, n) for architecture in ARCHITECTURES[:1] for n in SIZES
        ),  # 20 ms a program: the rest at one size
        *((architecture, 63) for architecture in ARCHITECTURES[1:]),
    ],
    ids=str,
)
def test_output_and_gradients_are_no_worse_than_plain(
    architecture: Architecture, n: int, poisoned_memory: PoisonedMemory
) -> None:
    case = make_case(n, architecture, width=WIDTH)
    single = cast(case, torch.float32)
    fused = poisoned_memory.run(lambda: run(single))
    for ours, plain, exact in zip(*map(tensors_of, (fused, run_plain(single), run_plain(case))), strict=True):
        assert_no_worse_than_plain(ours, plain, exact)


@pytest.mark.parametrize("lengths", [[300], [0, 0, 1], [200, 0, 100, 7], [1] * 37], ids=str)
def test_segments_may_be_longer_than_a_tile_and_shorter(lengths: list[int]) -> None:
    case = make_case(sum(lengths), width=WIDTH, lengths=lengths)
    for ours, exact in zip(tensors_of(run(case)), tensors_of(run_plain(case)), strict=True):
        assert_equal_to_rounding(ours, exact)


def test_the_width_of_chgnet() -> None:
    case = make_case(130, width=64)
    for ours, exact in zip(tensors_of(run(case)), tensors_of(run_plain(case)), strict=True):
        assert_equal_to_rounding(ours, exact)


def tf32_bound(case: Case) -> Tensor:
    """How far the message (segments, D) may be from exact, in float64, where factors are rounded to 11 bits.

    A product of two such errs by 2u + u², u = 2⁻¹¹, of itself; one with a one of the sum by u. |silu'| < 1.1,
    σ' ≤ 1/4. For an MLP without norms, which has two layers.
    """
    assert case.rows.dense is not None
    assert case.weights.second is not None
    assert case.weights.second_bias is not None
    u, x, x_weight = 2.0**-11, case.rows.dense.x, case.rows.dense.weight
    z = counts(case.rows.incidence, case.rows.table.shape[0]) @ case.rows.table + x @ x_weight
    error_z = (2 * u + u * u) * (x.abs() @ x_weight.abs())
    halves = []
    for z_half, error, weight, bias in zip(
        z.chunk(2, 1), error_z.chunk(2, 1), case.weights.second, case.weights.second_bias, strict=True
    ):
        h = silu(z_half)
        error_h = 1.1 * error
        error_y = error_h @ weight.abs() + (2 * u + u * u) * ((h.abs() + error_h) @ weight.abs())
        halves.append((h @ weight + bias, error_y))
    (core, error_core), (gate, error_gate) = halves
    p = silu(core) * torch.sigmoid(gate)
    error_p = 1.1 * error_core + (silu(core).abs() + 1.1 * error_core) * error_gate / 4
    w = (counts(case.weighting.incidence, case.weighting.table.shape[0]) @ case.weighting.table).abs()
    terms = w * (error_p + u * (p.abs() + error_p))
    return (
        torch.zeros(case.segments.ptr.shape[0] - 1, case.width).double().index_add_(0, case.segments.of_message, terms)
    )


def test_tf32_errs_as_factors_of_11_bits_make_it_and_no_more() -> None:
    case = make_case(63, Architecture(layers=2, norm=False, dense=True), width=WIDTH)
    split = cast(case, torch.float32)
    rounded = split._replace(rows=split.rows._replace(tf32=True))
    exact, (_, kept) = plain_message(case), gated_message.forward(*rounded, keep=gated_message.Scratch())
    assert kept is None
    errors = [(gated_message.forward(*each, keep=None)[0] - exact).abs() for each in (split, rounded)]
    assert (errors[1] <= tf32_bound(case)).all()
    assert errors[1].max() > 100 * errors[0].max()  # 2^13 times, were it not for other roundings of float32


def test_tf32_gradients_err_like_the_output() -> None:
    case = make_case(20, BOND_CONV, width=WIDTH)
    single = cast(case, torch.float32)
    found = [run(single._replace(rows=single.rows._replace(tf32=tf32))) for tf32 in (False, True)]
    for split, rounded, exact in zip(*map(tensors_of, (*found, run_plain(case))), strict=True):
        # 2^-10, twice in forward and twice in backward pass, at most a LayerNorm's 10 times.
        assert (split - exact).abs().max() * 30 < (rounded - exact).abs().max() < 0.04 * exact.abs().max()


def test_tf32_is_nothing_in_float64() -> None:
    case = make_case(7, BOND_CONV, width=WIDTH)
    same = case._replace(rows=case.rows._replace(tf32=True))
    assert all(map(torch.equal, tensors_of(run(case)), tensors_of(run(same))))
