"""The gated message's kernel, run by Triton's interpreter, against the dense formula."""

import pytest
import torch

from fastchgnet_kernels import gated_message
from fastchgnet_kernels._launch import INTERPRETED
from tests.closeness import assert_equal_to_rounding, assert_no_worse_than_plain
from tests.conftest import PoisonedMemory
from tests.kernels.gated import ARCHITECTURES, SIZES, Architecture, cast, make_case, tensors_of
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
