"""Candidates: what there is to choose from, and that pruning never loses what the model holds for the best."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastchgnet_kernels.io_model.candidates import (
    BLOCK_ROWS,
    RESOLUTION,
    SLACK,
    THREADED_RESOLUTION,
    Candidate,
    block_candidates,
    pruned,
    settled,
    short_list,
)
from fastchgnet_kernels.io_model.cpu_time import block_costs
from fastchgnet_kernels.io_model.device import Cpu
from fastchgnet_kernels.io_model.gated import GatedShape, compulsory_bytes
from fastchgnet_kernels.io_model.gpu_tiles import TILES, tile_candidates
from fastchgnet_kernels.io_model.gpu_time import fits, registers, shared_bytes
from fastchgnet_kernels.io_model.known_gpus import KNOWN

CPU = Cpu("any", l2=2**19, l3=2**24)
ATOM_CONV = GatedShape(43_000, 512, 22_000, 3, 0, 21_000, 2)
BOND_CONV = GatedShape(48_000, 3_000, 9_000, 2, 64, 3_000, 2)
ANGLE_UPDATE = GatedShape(48_000, 0, 9_000, 2, 64, 0, 1)
OPS = pytest.mark.parametrize("shape", [ATOM_CONV, BOND_CONV, ANGLE_UPDATE], ids=["atom", "bond", "angle"])

shapes = st.sampled_from([ATOM_CONV, BOND_CONV, ANGLE_UPDATE])
cpus = st.builds(
    Cpu,
    name=st.just("any"),
    threads=st.integers(1, 64),
    l2=st.integers(2**14, 2**22),
    l3=st.integers(2**22, 2**27),
    memory_rate=st.floats(1e9, 1e11),
    call_seconds=st.floats(1e-7, 1e-4),
)
costs = st.tuples(st.floats(1e-9, 10.0), st.floats(0.0, 1.0)).map(
    lambda pair: Candidate("any", pair[0], pair[0] * pair[1], 1.0, 1.0)
)


@settings(max_examples=30)
@given(st.lists(costs, min_size=1))
def test_pruning_keeps_the_best_by_prediction_first_and_all_that_might_be_better(
    candidates: list[Candidate[str]],
) -> None:
    best = min(candidate.seconds for candidate in candidates)
    kept = pruned(candidates)
    assert kept[0].seconds == best
    assert all(candidate in kept for candidate in candidates if candidate.least_seconds < best)
    assert all(candidate.least_seconds <= (1 + SLACK) * best for candidate in kept)


@settings(deadline=None, max_examples=20)
@given(shapes, cpus, st.integers(1, 10**6))
def test_no_block_is_predicted_to_beat_its_own_bound_nor_pruned_if_it_is_the_best(
    shape: GatedShape, cpu: Cpu, messages: int
) -> None:
    candidates = block_candidates(shape._replace(messages=messages), cpu)
    for candidate in candidates:
        assert candidate.least_seconds <= candidate.seconds * (1 + 1e-12)
        assert candidate.least_bytes <= candidate.moved_bytes * (1 + 1e-12)
    best = min(candidates, key=lambda candidate: candidate.seconds)
    assert pruned(candidates)[0] == best


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_of_blocks_that_hold_everything_there_is_one(messages: int) -> None:
    sizes = [candidate.choice for candidate in block_candidates(ATOM_CONV._replace(messages=messages), CPU)]
    assert sizes == sorted(set(sizes)) == [rows for rows in BLOCK_ROWS if rows in sizes]
    assert sum(rows >= messages for rows in sizes) <= 1
    assert max(sizes) >= min(messages, BLOCK_ROWS[-1])


@OPS
def test_no_more_than_a_fifth_is_measured(shape: GatedShape) -> None:
    for messages in (1, 100, 700, 6_000, 100_000):
        candidates = block_candidates(shape._replace(messages=messages), CPU)
        assert len(short_list(candidates)) <= max(1, len(candidates) / 5)


@OPS
def test_small_blocks_lose_to_calls_and_blocks_beyond_the_cache_to_memory(shape: GatedShape) -> None:
    seconds = [cost.seconds for cost in block_costs(BLOCK_ROWS, shape, CPU)]
    best = seconds.index(min(seconds))
    assert 512 <= BLOCK_ROWS[best] <= 16_384
    assert seconds[0] > 2 * seconds[best]
    assert seconds[-1] > 1.02 * seconds[best]


level = st.floats(1.0, 1.03)  # among them some that the model cannot tell apart
predictions = st.lists(st.one_of(level, st.floats(1e-9, 10.0)), min_size=1, max_size=len(BLOCK_ROWS))


@settings(max_examples=60)
@given(predictions, st.sampled_from([1, 2, 64]))
def test_unmeasured_the_smallest_block_within_the_models_resolution_is_chosen(
    seconds: list[float], threads: int
) -> None:
    candidates = [Candidate(rows, s, 0.0, 1.0, 1.0) for rows, s in zip(BLOCK_ROWS, seconds, strict=False)]
    resolution = RESOLUTION if threads == 1 else THREADED_RESOLUTION
    chosen = seconds[BLOCK_ROWS.index(settled(candidates, threads))]
    assert chosen <= (1 + resolution) * min(seconds)
    assert all(s > (1 + resolution) * min(seconds) for s in seconds[: seconds.index(chosen)])


@settings(max_examples=100)
@given(predictions)
def test_of_more_blocks_than_are_measured_that_the_model_cannot_tell_apart_both_ends_are(seconds: list[float]) -> None:
    candidates = [Candidate(rows, s, 0.0, 1.0, 1.0) for rows, s in zip(BLOCK_ROWS, seconds, strict=False)]
    listed = short_list(candidates)
    level = [c for c in candidates if c.seconds <= (1 + THREADED_RESOLUTION) * min(seconds)]
    assert len(set(listed)) == len(listed) == min(max(1, len(candidates) // 5), len(candidates))
    if 1 < len(listed) < len(level):
        assert set(listed) <= set(level)
        assert (listed[0], listed[-1]) == (level[0], level[-1])
    else:
        assert listed == pruned(candidates)[: len(listed)]


@OPS
def test_cheaper_calls_want_no_larger_blocks(shape: GatedShape) -> None:
    best = [pruned(block_candidates(shape, replace(CPU, call_seconds=s)))[0].choice for s in (1e-4, 1e-5, 1e-6, 1e-7)]
    assert best == sorted(best, reverse=True)


@OPS
def test_threads_want_blocks_large_enough_to_be_divided(shape: GatedShape) -> None:
    """torch divides what has 32,768 elements: 512 rows of 64 for each thread."""
    assert pruned(block_candidates(shape, replace(CPU, threads=8)))[0].choice >= 8 * 512


@OPS
@pytest.mark.parametrize("gpu", KNOWN.values(), ids=KNOWN)
def test_there_are_tiles_for_every_known_gpu_and_they_fit(shape: GatedShape, gpu: object) -> None:
    candidates = tile_candidates(shape, gpu)  # type: ignore[arg-type]
    assert 5 <= len(candidates) < len(TILES)
    for candidate in candidates:
        tile = candidate.choice
        assert fits(tile, shape, gpu)  # type: ignore[arg-type]
        assert candidate.least_seconds <= candidate.seconds
        assert compulsory_bytes(shape) == candidate.least_bytes <= candidate.moved_bytes


def test_tiles_that_need_more_than_there_is_are_left_out() -> None:
    """256 rows of 64 columns on 4 warps: each of 4 arrays takes 128 registers of a thread, which has 255."""
    gpu = KNOWN["H200"]
    tiles = {candidate.choice for candidate in tile_candidates(ATOM_CONV, gpu)}
    assert not any(tile.rows == 256 and tile.warps == 4 for tile in tiles)
    assert all(registers(tile, ATOM_CONV) <= 255 for tile in tiles)
    assert all(shared_bytes(tile, ATOM_CONV) <= gpu.shared_per_program for tile in tiles)


def test_float64_takes_twice_the_registers_and_so_smaller_tiles() -> None:
    gpu = KNOWN["A100"]
    single = max(c.choice.rows for c in tile_candidates(ATOM_CONV, gpu))
    double = max(c.choice.rows for c in tile_candidates(ATOM_CONV._replace(itemsize=8), gpu))
    assert double < single


def test_an_update_has_no_segments_to_choose() -> None:
    assert {c.choice.segments for c in tile_candidates(ANGLE_UPDATE, KNOWN["H100"])} == {1}
