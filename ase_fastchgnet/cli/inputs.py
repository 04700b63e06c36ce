"""From what a user types to structures, read one after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .report import Report

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Input:
    """A structure and how to refer to it."""

    name: str  # its own id, or the file as given, with @INDEX if it has several frames
    path: Path  # the file
    frame: int | None  # which of several
    atoms: "Atoms"


def read_structures(files: Sequence[str], report: Report) -> Iterator[Input]:
    """The structures in all `files`, folders and globs, one at a time; what cannot be used is reported and left out."""
    from ase_fastchgnet.workflows.sources import read_source

    for entry in read_source(files):
        if entry.atoms is None:
            report.failed(entry.id, entry.error)
        else:
            assert entry.path is not None
            yield Input(name=entry.id, path=entry.path, frame=entry.frame, atoms=entry.atoms)


def read_structure(file: str) -> "Atoms":
    """The last frame of `file`, or the one that FILE@INDEX means; ValueError if that cannot be used."""
    from ase_fastchgnet.workflows.sources import read_file, split_index

    entries = list(read_file(file if split_index(file)[1] else f"{file}@-1"))
    if not entries:
        raise ValueError(f"{file}: there is no structure in it")
    last = entries[-1]
    if last.atoms is None:
        raise ValueError(f"{file}: {last.error}")
    return last.atoms
