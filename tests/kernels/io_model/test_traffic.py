"""Traffic of the gated ops: the theory's numbers, a case counted by hand, and bounds below every tile."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchgnet_kernels.io_model import concatenated as c
from fastchgnet_kernels.io_model.gated import GatedShape, compulsory_bytes, fused_bytes, unfused_bytes

OPS = [c.atom_conv(1000), c.bond_conv(1000, 18), c.angle_update(1000)]
SHAPES = st.builds(
    GatedShape,
    messages=st.integers(1, 10**6),
    segments=st.integers(0, 10**4),
    table_rows=st.integers(1, 10**6),
    gathered=st.integers(1, 4),
    dense=st.sampled_from([0, 21, 64]),
    factor_rows=st.integers(0, 10**5),
    layers=st.sampled_from([1, 2]),
    width=st.sampled_from([32, 64]),
    itemsize=st.sampled_from([4, 8]),
)


@pytest.mark.parametrize(("op", "words"), list(zip(OPS, (46, 55, 38), strict=True)))
def test_unfused_words_of_a_row_are_those_of_the_count_by_ops(op: c.Concatenation, words: int) -> None:
    assert c.unfused_words(op) == words * op.messages * op.width


@pytest.mark.parametrize(("op", "units"), list(zip(OPS, (4.06, 5.10, 5.05), strict=True)))
def test_fused_words_of_a_row(op: c.Concatenation, units: float) -> None:
    assert c.fused_words(op) / (op.messages * op.width) == pytest.approx(units, abs=0.005)


@pytest.mark.parametrize(("op", "rows"), list(zip(OPS, (126, 125, 101), strict=True)))
def test_rows_at_which_weights_and_rows_move_alike(op: c.Concatenation, rows: int) -> None:
    assert c.balanced_rows(op) == pytest.approx(rows, abs=0.5)


@pytest.mark.parametrize("reuse", [1.0, 2.0, 8.0])
def test_the_best_tile_of_the_first_linear_is_that_of_a_search_and_meets_the_bound(reuse: float) -> None:
    op, accumulators = c.atom_conv(10**5), 4096
    rows, columns = c.best_tile(accumulators, reuse)
    best = c.streamed_words(op, rows, columns, reuse)
    grid = [1.03**k for k in range(200)]
    least = min(c.streamed_words(op, m, accumulators / m, reuse) for m in grid)
    assert best <= least <= 1.001 * best
    assert best == pytest.approx(c.capacity_bound(op, accumulators, reuse))


def test_whole_rows_cost_what_the_theory_says_over_the_unconstrained_tile() -> None:
    """LayerNorm needs n = 2d: 1.25 times the least for R = 1 and 64 k accumulators, 1.06 for R = 2."""
    op, accumulators = c.atom_conv(10**5), 2**16
    for reuse, ratio in ((1.0, 1.25), (2.0, 1.06), (8.0, 1.06), (35.0, 1.65)):
        rows = accumulators / (2 * op.width)
        least = c.streamed_words(op, *c.best_tile(accumulators, reuse), reuse)
        assert c.streamed_words(op, rows, 2 * op.width, reuse) / least == pytest.approx(ratio, abs=0.01)


def test_weights_that_fit_leave_no_bound_but_the_floor() -> None:
    op = c.atom_conv(1000)
    assert c.capacity_bound(op, op.weights / 3) == 0.0
    assert c.capacity_bound(op, op.weights / 3 - 1) > 0.0


@pytest.mark.parametrize("op", OPS, ids=lambda op: f"{op.blocks} blocks, {op.layers} layers")
def test_the_floor_is_below_fused_and_fused_below_unfused(op: c.Concatenation) -> None:
    """Tables as small as in a crystal: a bond row for two edges, an atom row for 63."""
    floor = c.floor_words(op, table_rows=op.messages // 2, factor_rows=op.messages // 2 if op.factors else 0)
    assert floor - op.weights < c.fused_words(op) < c.unfused_words(op) / 5


def test_a_case_counted_by_hand() -> None:
    """Three messages onto two sums, each adding up two of four table rows of 2·2 words and multiplied by one of two
    rows; one layer; float32."""
    shape = GatedShape(3, 2, 4, 2, 0, 2, 1, width=2)
    weights = 4 * 2  # scale and shift of both halves
    indices = 3 * 2 + 3 + 3 + 3  # rows, factor's row, owner of each message; three pointers
    assert compulsory_bytes(shape) == 4 * (4 * 4 + 2 * 2 + 2 * 2 + weights + indices)
    one_tile = 4 * (3 * 2 * 4 + 3 * 2 + 2 * 2 + weights + indices)
    assert fused_bytes(shape, rows=3) == one_tile
    assert fused_bytes(shape, rows=2) == one_tile + 4 * weights


def test_an_update_counted_by_hand() -> None:
    """Two messages of one table row each and three columns of their own, added to what is there; two layers."""
    shape = GatedShape(2, 0, 5, 1, 3, 0, 2, width=2)
    weights = 2 * (2 * 2 + 2) + 4 * 2 + 3 * 4
    assert compulsory_bytes(shape) == 4 * (2 * 4 + 2 * 3 + 2 * (2 * 2) + weights + 2)


@given(SHAPES)
def test_nothing_moves_less_than_what_must_be_moved(shape: GatedShape) -> None:
    least = compulsory_bytes(shape)
    for rows, larger in itertools.pairwise((1, 2, 128, 10**7)):
        assert least <= fused_bytes(shape, larger) <= fused_bytes(shape, rows)
    assert fused_bytes(shape, 10**7) <= unfused_bytes(shape)
