"""The simulator of scaling against bounds that hold for any schedule, and its data against the package."""

import numpy as np
import pytest

from ase_fastchgnet.graph import Cutoffs
from ase_fastchgnet.graph.size import size_of
from benchmarks._parent import DATA, read_crystals
from benchmarks._simulation import Floats, Outcome, by_count, longest_first, shared_queue, side_by_side, static_split
from benchmarks.scaling import read_sizes

ROUNDING = 1e-12  # relative: sums of thousands of float64 in different orders


def uneven_work(seed: int, chunks: int = 2000) -> Floats:
    return np.random.default_rng(seed).lognormal(0, 1, chunks)


def queued(work: Floats, workers: int, **costs: float) -> Outcome:
    before = np.full(len(work), costs.pop("before", 0.0))
    return shared_queue(work, np.ones(workers), in_flight=2 * workers, before=before, **costs)


@pytest.mark.parametrize("workers", [1, 7, 100])
def test_equal_work_without_overhead_is_done_as_many_times_faster_as_there_are_workers(workers: int) -> None:
    work = np.full(30 * workers, 0.25)
    outcome = queued(work, workers)
    assert outcome.balance == pytest.approx(1, rel=ROUNDING)
    assert outcome.efficiency == pytest.approx(1, rel=ROUNDING)
    assert outcome.makespan == pytest.approx(work.sum() / workers, rel=ROUNDING)


@pytest.mark.parametrize(("workers", "seed"), [(2, 0), (9, 1), (64, 2), (500, 3)])
def test_a_shared_queue_keeps_grahams_bound(workers: int, seed: int) -> None:
    work = uneven_work(seed)
    makespan = queued(work, workers).makespan
    mean, longest = work.sum() / workers, work.max()
    assert max(mean, longest) * (1 - ROUNDING) <= makespan <= mean + (1 - 1 / workers) * longest + ROUNDING


@pytest.mark.parametrize("workers", [1, 5, 64])
def test_every_way_to_spread_does_all_of_the_work_once(workers: int) -> None:
    work, even = uneven_work(0), np.ones(workers)
    outcomes = [
        queued(work, workers),
        queued(work, workers, before=0.03, message=0.03),
        side_by_side([queued(work[::2], workers), queued(work[1::2], workers)]),
        static_split(work, by_count(len(work), workers), even),
        static_split(work, longest_first(work, workers), even),
    ]
    for outcome in outcomes:
        assert outcome.busy.sum() == pytest.approx(work.sum(), rel=ROUNDING)
        assert outcome.makespan >= outcome.busy.max() * (1 - ROUNDING)


def test_what_the_parent_does_for_each_chunk_limits_the_throughput() -> None:
    work = np.full(1000, 1.0)
    alone = queued(work, 4, before=0.04)
    assert alone.makespan == pytest.approx(1000 / 4, rel=0.01)  # 25 workers would be needed to wait for the parent
    for workers in (100, 200):
        assert queued(work, workers, before=0.04).makespan == pytest.approx(1000 * 0.04, rel=0.05)


def test_a_message_costs_each_worker_its_time_once_a_chunk() -> None:
    assert queued(np.full(100, 1.0), 4, message=0.1).makespan == pytest.approx(25 * 1.1, rel=ROUNDING)


def test_a_slow_worker_of_a_shared_queue_gets_less_to_do() -> None:
    work, slowness = np.full(3000, 0.1), np.array([1.0, 1.0, 2.0])
    queue = shared_queue(work, slowness, in_flight=6, before=np.zeros(len(work)))
    assert queue.makespan == pytest.approx(work.sum() / 2.5, rel=0.01)  # speeds add up to 2.5
    assert static_split(work, by_count(len(work), 3), slowness).makespan == pytest.approx(work.sum() / 3 * 2)


def test_longest_first_gives_each_to_whom_has_least() -> None:
    times = np.array(
        [3.0, 5.0, 3.0, 4.0, 3.0]
    )  # Graham's example: 5 + 3 and 4 + 3 + 3, though 5 + 4 and 3 + 3 + 3 exist
    assert sorted(static_split(times, longest_first(times, 2), np.ones(2)).busy) == [8, 10]


def test_equal_counts_differ_by_one_at_most_and_keep_the_order() -> None:
    worker_of = by_count(103, 10)
    assert set(np.bincount(worker_of)) == {10, 11}
    assert (np.diff(worker_of) >= 0).all()


def test_the_stored_sizes_are_those_that_the_package_counts() -> None:
    with np.load(DATA / "mp_sizes.npz") as data:
        rows = data["rows_of_mp20_2000"]
    stored, crystals = read_sizes()[rows], read_crystals()
    assert len(stored) == len(crystals)
    for n in range(0, len(crystals), 40):
        assert size_of(crystals[n], Cutoffs()) == tuple(stored[n])
