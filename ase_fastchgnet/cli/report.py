"""What a command says while and after it works, on standard error; results go to standard output."""

import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import typer

_SYSTEM = re.compile(r"^system (\d+): ")


def complain(message: str) -> None:
    """One line on standard error."""
    print(message, file=sys.stderr)


class Report:
    """Counts what was done and what failed; prints the summary at the end, and exits with 1 if anything failed.

    with Report("evaluated") as report:
        report.done()
        report.failed("broken.cif", "cannot be read")
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.n_done = 0
        self.failures: list[tuple[str, str]] = []  # (name, why)

    def done(self, n: int = 1) -> None:
        """`n` more structures are done."""
        self.n_done += n

    def failed(self, name: str, why: object) -> None:
        """The structure or file `name` failed."""
        self.failures.append((name, without_system(str(why))))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.n_done or self.failures:
            self._summarize()
        if self.failures and error is None:
            raise typer.Exit(1)

    def _summarize(self) -> None:
        summary = f"{self.n_done} {'structure' if self.n_done == 1 else 'structures'} {self.what}"
        if not self.failures:
            return complain(summary)
        complain(f"{summary}, {len(self.failures)} failed:")
        reasons: dict[str, list[str]] = {}
        for name, why in self.failures:
            reasons.setdefault(why, []).append(name)
        for why, names in reasons.items():
            complain(f"  {', '.join(names)}: {why}")
        return None


def without_system(message: str) -> str:
    """`message` without the "system N: " that errors of the evaluation start with."""
    return _SYSTEM.sub("", message)


def show_warning(message: Warning | str, *about: Any) -> None:
    """A warning as one line, in place of `warnings.showwarning`."""
    del about  # where in the code it was raised
    complain(f"warning: {without_system(str(message))}")


@contextmanager
def warnings_name(names: Sequence[str]) -> Iterator[None]:
    """Warnings say which structure they are about: "system N" is `names[N]`, and what does not say is the first."""

    def show(message: Warning | str, *about: Any) -> None:
        match = _SYSTEM.match(str(message))
        show_warning(f"{names[int(match[1]) if match else 0]}: {without_system(str(message))}", *about)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield
