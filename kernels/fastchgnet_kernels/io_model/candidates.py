"""What can be chosen: blocks enumerated, anything pruned by its bound and ranked by predicted time."""

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from fastchgnet_kernels.io_model.cpu_time import block_costs
from fastchgnet_kernels.io_model.device import Cpu
from fastchgnet_kernels.io_model.gated import GatedShape

Choice = TypeVar("Choice")

# 64, 96, 128, 192 … 32768
BLOCK_ROWS: tuple[int, ...] = tuple(sorted([64 << k for k in range(10)] + [96 << k for k in range(9)]))


RESOLUTION = 0.01  # differences of predicted times that mean nothing ...
THREADED_RESOLUTION = 0.02  # ... and with several threads, or where there is time to measure
SLACK = 0.1  # by which a bound may be off: it is made of rates, as a prediction is


class Candidate(NamedTuple, Generic[Choice]):
    choice: Choice
    seconds: float  # predicted
    least_seconds: float  # no less, by the bound of what it must do and move
    moved_bytes: float
    least_bytes: float


def block_candidates(shape: GatedShape, cpu: Cpu) -> list[Candidate[int]]:
    """Rows of a block: of those that hold all messages, only the smallest."""
    small = [rows for rows in BLOCK_ROWS if rows < shape.messages]
    whole = [rows for rows in BLOCK_ROWS if rows >= shape.messages][:1]
    sizes = small + whole
    return [Candidate(rows, *cost) for rows, cost in zip(sizes, block_costs(sizes, shape, cpu), strict=True)]


def pruned(candidates: Iterable[Candidate[Choice]]) -> list[Candidate[Choice]]:
    """Fastest first, without those whose bound alone is slower by `SLACK` than the fastest one is predicted to be.

    That one is always left: nothing is predicted to be faster than its own bound.
    """
    ranked = sorted(candidates, key=lambda candidate: candidate.seconds)
    return [candidate for candidate in ranked if candidate.least_seconds <= (1 + SLACK) * ranked[0].seconds]


def alike(candidates: list[Candidate[Choice]], resolution: float) -> list[Candidate[Choice]]:
    """Those that the model cannot tell from the best, as they are enumerated: blocks from small to large."""
    best = min(candidate.seconds for candidate in candidates)
    return [candidate for candidate in candidates if candidate.seconds <= (1 + resolution) * best]


def settled(candidates: list[Candidate[int]], threads: int) -> int:
    """What to choose without measuring: the smallest of those that the model cannot tell from the best.

    The smaller of two blocks takes less memory and leaves more of a shared cache to others.
    """
    return alike(candidates, RESOLUTION if threads == 1 else THREADED_RESOLUTION)[0].choice


def short_list(candidates: list[Candidate[Choice]], share: int = 5) -> list[Candidate[Choice]]:
    """What is worth measuring, one for every `share` candidates.

    Where the model can tell them apart, the first of the pruned and ranked. Of more that it cannot, some from one end
    to the other: neighbours would say the same, and be wrong together.
    """
    n = max(1, len(candidates) // share)
    level = alike(candidates, THREADED_RESOLUTION)
    if n == 1 or len(level) <= n:
        return pruned(candidates)[:n]
    return [level[round(i * (len(level) - 1) / (n - 1))] for i in range(n)]
