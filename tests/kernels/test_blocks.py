"""How rows are cut into blocks."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from fastchgnet_kernels.gated_message.rows import even_rows, row_blocks, segment_blocks

LENGTHS = st.lists(st.integers(0, 40), max_size=60)


@given(LENGTHS, st.integers(1, 300))
def test_blocks_of_whole_segments_hold_every_row_once_in_order(lengths: list[int], size: int) -> None:
    ptr = torch.tensor([0, *lengths]).cumsum(0)
    blocks = list(segment_blocks(ptr, size))
    assert [row for _, _, lo, hi in blocks for row in range(lo, hi)] == list(range(int(ptr[-1])))
    for first, last, lo, hi in blocks:
        assert (lo, hi) == (ptr[first], ptr[last])
        assert hi - lo <= size + max(lengths)


@given(st.integers(1, 20_000), st.integers(64, 4096), st.integers(1, 30))
def test_even_blocks_are_as_many_as_fit_best_and_no_rest_is_left(messages: int, rows: int, longest: int) -> None:
    size = even_rows(messages, rows)
    n_blocks = max(round(messages / rows), 1)
    assert len(list(row_blocks(messages, size))) <= n_blocks
    assert size <= 1.5 * rows + 1
    ptr = torch.tensor([*range(0, messages, longest), messages])
    sizes = [hi - lo for _, _, lo, hi in segment_blocks(ptr, size)]
    assert len(sizes) <= n_blocks
    assert max(sizes) <= size + longest


def test_no_rows_are_no_blocks() -> None:
    assert list(row_blocks(0, even_rows(0, 64))) == []
