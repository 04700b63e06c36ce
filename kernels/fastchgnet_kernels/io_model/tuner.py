"""Measures what the model recommends and takes the fastest; or measures everything, to see what that was worth."""

import logging
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from fastchgnet_kernels.io_model.candidates import Candidate, short_list

log = logging.getLogger(__name__)

Choice = TypeVar("Choice")

# Seconds of each of some choices, None for one that cannot run; all at once, so that they can be measured in turn.
Measure = Callable[[list[Choice]], list[float | None]]


class Measured(NamedTuple, Generic[Choice]):
    """A candidate and how long it took; None where it was not measured, or could not run."""

    candidate: Candidate[Choice]
    seconds: float | None

    @property
    def bound_ratio(self) -> float:
        """What it is predicted to move, over what must be moved."""
        return self.candidate.moved_bytes / max(self.candidate.least_bytes, 1.0)


class Tuning(NamedTuple, Generic[Choice]):
    """The outcome, the fastest first; what was not measured follows in the order of prediction."""

    rows: list[Measured[Choice]]

    @property
    def best(self) -> Measured[Choice]:
        return self.rows[0]

    @property
    def n_measured(self) -> int:
        return sum(row.seconds is not None for row in self.rows)

    def loss(self, exhaustive: "Tuning[Choice]") -> float:
        """How much longer this choice took, in the exhaustive measurement, than the best one there; 0.05 is 5 %."""
        seconds = {row.candidate.choice: row.seconds for row in exhaustive.rows}
        mine, least = seconds.get(self.best.candidate.choice), exhaustive.best.seconds
        if mine is None or not least:
            raise ValueError(f"{self.best.candidate.choice} was not measured among all candidates; nothing to compare")
        return mine / least - 1.0


def tune(candidates: list[Candidate[Choice]], measure: Measure[Choice], *, exhaustive: bool = False) -> Tuning[Choice]:
    """The fastest of a short list of `candidates`, or with `exhaustive` of all.

    If none can run, what the model holds for the best is the outcome.
    """
    if not candidates:
        raise ValueError("there is nothing to choose from: no candidate fits the device's resources")
    ranked = sorted(candidates, key=lambda candidate: candidate.seconds)
    listed = ranked if exhaustive else short_list(candidates)
    found = measure([candidate.choice for candidate in listed])
    seconds = dict(zip([candidate.choice for candidate in listed], found, strict=True))
    rows = [Measured(candidate, seconds.get(candidate.choice)) for candidate in ranked]
    rows.sort(key=lambda row: float("inf") if row.seconds is None else row.seconds)
    for choice, taken in seconds.items():
        log.debug("%s: %s s", choice, "cannot run" if taken is None else f"{taken:.3e}")
    return Tuning(rows)
