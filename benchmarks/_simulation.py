"""Ways to spread work over workers, simulated: who is busy for how long, and when all is done."""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of a spread."""

    busy: Floats  # (workers,) seconds that each worker evaluated
    makespan: float  # seconds until all is done

    @property
    def balance(self) -> float:
        """Longest over mean time that workers were busy: 1 is perfect."""
        return float(self.busy.max() / self.busy.mean())

    @property
    def efficiency(self) -> float:
        """Share of the workers' time in which they evaluated: 1 is perfect."""
        return float(self.busy.mean() / self.makespan)


def shared_queue(
    work: Floats,
    slowness: Floats,
    *,
    in_flight: int,
    before: Floats,
    message: float = 0.0,
) -> Outcome:
    """`run_chunks` over a pool whose workers share one queue.

    work       (chunks,) seconds that a worker of slowness 1 evaluates
    slowness   (workers,) factor to `work`
    in_flight  chunks that are with the workers at most, waiting ones included
    before     (chunks,) seconds of the one parent to read, size, send and write a chunk
    message    seconds that a worker waits from one chunk to the next
    """
    busy = np.zeros(len(slowness))
    free = [(0.0, worker) for worker in range(len(slowness))]
    ends: list[float] = []
    fresh = iter(range(len(work)))
    clock = 0.0  # of the parent
    while True:
        for chunk in itertools.islice(fresh, in_flight - len(ends)):
            clock += before[chunk]
            since, worker = heapq.heappop(free)
            seconds = work[chunk] * slowness[worker]
            end = max(clock, since) + message + seconds
            busy[worker] += seconds
            heapq.heappush(free, (end, worker))
            heapq.heappush(ends, end)
        if not ends:
            return Outcome(busy, clock)
        clock = max(clock, ends[0])
        while ends and ends[0] <= clock:
            heapq.heappop(ends)


def side_by_side(outcomes: Sequence[Outcome]) -> Outcome:
    """Runs that know nothing of each other, at the same time."""
    return Outcome(np.concatenate([o.busy for o in outcomes]), max(o.makespan for o in outcomes))


def static_split(work: Floats, worker_of: Integers, slowness: Floats) -> Outcome:
    """Work that is dealt out beforehand; nothing but the evaluation takes time."""
    busy = np.bincount(worker_of, work, minlength=len(slowness)) * slowness
    return Outcome(busy, float(busy.max()))


def by_count(n: int, workers: int) -> Integers:
    """The worker of each of `n` structures: equal numbers of consecutive ones."""
    return np.arange(n) * workers // n


def longest_first(predicted: Floats, workers: int) -> Integers:
    """The worker of each structure: from the longest to the shortest, each to whom has least (Graham 1969)."""
    worker_of = np.zeros(len(predicted), dtype=np.int64)
    loads = [(0.0, worker) for worker in range(workers)]
    for structure in np.argsort(-predicted, kind="stable"):
        load, worker = loads[0]
        worker_of[structure] = worker
        heapq.heapreplace(loads, (load + predicted[structure], worker))
    return worker_of
