"""What checks of data have to say, and how it is said."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
EXAMPLES = 3  # structures named in a finding


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know of the data.

    error: training on it would teach something wrong.  warning: look at it.  note: good to know.
    """

    severity: Severity
    text: str
    structures: tuple[str, ...] = ()  # the sources of those that it is about, the worst ones first

    def __str__(self) -> str:
        where = f" ({_named(self.structures)})" if self.structures else ""
        return textwrap.fill(f"{self.severity}: {self.text}{where}", 110, subsequent_indent="    ")


def structures(count: int) -> str:
    """So many, in words."""
    return f"{count:,} structure{'' if count == 1 else 's'}"


def _named(sources: Sequence[str]) -> str:
    """The first of them; a file is named once."""
    names: list[str] = []
    last = ""
    for source in sources[:EXAMPLES]:
        file, at, number = source.rpartition("@")
        names.append(f"@{number}" if at and file == last else source)
        last = file
    more = len(sources) - EXAMPLES
    return ", ".join(names) + (f" and {more:,} more" if more > 0 else "")
