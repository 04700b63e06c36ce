"""The segment sum's kernel, run by Triton's interpreter, against the sum entry by entry."""

import pytest
import torch

from fastchgnet_kernels import segment_sum
from tests.closeness import assert_equal_to_rounding, assert_no_worse_than_plain
from tests.conftest import PoisonedMemory
from tests.kernels.gated import SIZES
from tests.kernels.test_segment_sum import inputs, looped


@pytest.mark.parametrize("n_entries", SIZES)
@pytest.mark.parametrize("width", [6, 64])
def test_forward_is_the_sum_entry_by_entry(n_entries: int, width: int, poisoned_memory: PoisonedMemory) -> None:
    x, index, ptr = inputs(n_entries, width=width)
    exact = looped(x, index, ptr)
    out = poisoned_memory.run(lambda: segment_sum.forward(x, index, ptr))
    assert_equal_to_rounding(out, exact, roundings=256)
    single = x.float()
    assert_no_worse_than_plain(segment_sum.forward(single, index, ptr), looped(single, index, ptr), exact)


def test_there_may_be_no_segments_and_no_rows() -> None:
    none, only_zero = torch.zeros(0, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    assert segment_sum.forward(torch.ones(3, 4), none, only_zero).shape == (0, 4)
    sums = segment_sum.forward(torch.ones(0, 4), none, only_zero.expand(4).contiguous())
    assert torch.equal(sums, torch.zeros(3, 4))
