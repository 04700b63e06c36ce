"""What is happening while something long runs: a bar on a terminal, lines in the log elsewhere.

Bars go to standard error.  Without a terminal the same text is logged at level INFO, at most ten lines a run and one
every ten seconds; `logging.basicConfig(level="INFO")` shows them.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_log = logging.getLogger(__name__)

LOG_SECONDS = 10.0


class Meter:
    """Takes what has been done and shows it."""

    def __init__(self, what: str, total: int | None, bar: Progress | None, level: int = logging.INFO) -> None:
        self.what = what
        self.total = total
        self._level = level
        self._start = time.monotonic()
        self._logged = (0, self._start)  # how far, when
        self._bar = bar
        self._task = None if bar is None else bar.add_task(what, total=total, note="")

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._start

    def update(self, done: int, note: str = "") -> None:
        """`done` of `total` are finished; `note` is what else is worth seeing, a few words."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, note=note)
            return
        before, when = self._logged
        now = time.monotonic()
        far = self.total is not None and done - before >= max(1, self.total / 10) and now - when >= 1.0
        last = self.total is not None and done >= self.total > before
        if last or far or now - when >= LOG_SECONDS:
            whole = "" if self.total is None else f"/{self.total}"
            _log.log(self._level, "%s: %d%s  %s", self.what, done, whole, note)
            self._logged = (done, now)


@contextmanager
def progress(what: str, total: int | None, shown: bool | None = None) -> Iterator[Meter]:
    """A Meter for `total` pieces of work called `what`; None if nobody knows how many there are.

    `shown`: True draws the bar wherever standard error goes; None draws it on a terminal or in a notebook, and logs at
    level INFO elsewhere; False leaves it at DEBUG messages.
    """
    console = Console(stderr=True)
    if shown is False or not (shown or console.is_terminal or console.is_jupyter):
        yield Meter(what, total, None, logging.DEBUG if shown is False else logging.INFO)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield Meter(what, total, bar)
