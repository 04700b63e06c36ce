"""Chunks of items to an executor, results back; what dies is tried again, and what kills is set aside."""

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from .pool import WorkerDied

_log = logging.getLogger(__name__)

T = TypeVar("T")
MAX_DEATHS = 2  # workers that an item may kill when it is alone
HOPELESS = 8  # deaths before the first answer: it is not the items that kill


class Submits(Protocol):
    """Anything with the `submit` of concurrent.futures: a WorkerPool, an executor of Dask or of mpi4py."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> "Future[Any]": ...


@dataclass(frozen=True, slots=True)
class Chunk(Generic[T]):
    """Items that go to a worker together."""

    items: Sequence[T]
    deaths: int = 0  # of workers on this very chunk


class KillsWorkers(RuntimeError):
    """Stands for the result of an item on which worker processes die."""


def run_chunks(
    chunks: Iterable[Sequence[T]],
    function: Callable[[Sequence[T]], Any],
    executor: Submits,
    *,
    in_flight: int,
) -> Iterator[tuple[Sequence[T], Any]]:
    """Yields (items, function(items)) as chunks are done, in whatever order; `chunks` is read as room gets free.

    At most `in_flight` chunks are with the executor.  A chunk whose worker dies is tried again item by item; for an
    item that kills two workers alone, a KillsWorkers is yielded in the place of its results.  An exception that
    `function` raises is raised here, and a RuntimeError if workers do nothing but die.  Closing the iterator cancels
    what has not begun.
    """
    fresh = iter(chunks)
    again: deque[Chunk[T]] = deque()
    running: dict[Future[Any], Chunk[T]] = {}
    deaths, any_answer = 0, False
    try:
        while True:
            for chunk in _take(again, fresh, in_flight - len(running)):
                running[executor.submit(function, chunk.items)] = chunk
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                chunk = running.pop(future)
                error = future.exception()
                if error is None:
                    any_answer = True
                    yield chunk.items, future.result()
                    continue
                if not _is_death(error):
                    raise error
                deaths += 1
                if deaths >= HOPELESS and not any_answer:
                    raise RuntimeError(f"{deaths} worker processes died and none has answered yet: {error}") from error
                if len(chunk.items) > 1:
                    _log.warning("%s; trying its %d structures one by one", error, len(chunk.items))
                    again.extend(Chunk([item]) for item in chunk.items)
                elif chunk.deaths + 1 < MAX_DEATHS:
                    again.append(Chunk(chunk.items, chunk.deaths + 1))
                else:
                    yield chunk.items, KillsWorkers(f"set aside: {MAX_DEATHS} worker processes died on it ({error})")
    finally:
        for future in running:
            future.cancel()


def _take(again: "deque[Chunk[T]]", fresh: Iterator[Sequence[T]], room: int) -> Iterator[Chunk[T]]:
    """At most `room` chunks, those to be tried again first."""
    for _ in range(min(room, len(again))):
        room -= 1
        yield again.popleft()
    yield from (Chunk(items) for items in itertools.islice(fresh, max(room, 0)))


def _is_death(error: BaseException) -> bool:
    """Whether the worker died, by the names that pools have for it; Dask's is not imported for the question."""
    return isinstance(error, WorkerDied | BrokenExecutor) or type(error).__name__ in ("KilledWorker", "CommClosedError")
