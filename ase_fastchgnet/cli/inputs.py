"""From what a user types to structures, read one after the other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .report import Report, warnings_name

if TYPE_CHECKING:
    from ase import Atoms

    from ase_fastchgnet.workflows.sources import Entry


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Input:
    """A structure and how to refer to it."""

    name: str  # its own id, or the file as given, with @INDEX if it has several frames
    path: Path  # the file
    frame: int | None  # which of several
    atoms: "Atoms"


def read_entries(files: Sequence[str], n_read: Callable[[int], None] = lambda n: None) -> Iterator["Entry"]:
    """What is in all `files`, folders and globs, one structure at a time; `n_read` is told how many files are done."""
    from ase_fastchgnet.workflows.sources import expand, read_file

    paths = [path for file in files for path in expand(file)]
    for n, path in enumerate(paths):
        entries = read_file(path)
        while True:
            with warnings_name([path]):
                entry = next(entries, None)
            if entry is None:
                break
            yield entry
        n_read(n + 1)


def read_structures(files: Sequence[str], report: Report) -> Iterator[Input]:
    """The structures in all `files`; what cannot be used is reported and left out."""
    for entry in read_entries(files):
        if entry.atoms is None:
            report.failed(entry.id, entry.error)
        else:
            assert entry.path is not None
            yield Input(name=entry.id, path=entry.path, frame=entry.frame, atoms=entry.atoms)


def read_structure(file: str) -> "Atoms":
    """The last frame of `file`, or the one that FILE@INDEX means; ValueError if that cannot be used."""
    from ase_fastchgnet.workflows.sources import read_file, split_index

    with warnings_name([file]):
        *_, last = read_file(file if split_index(file)[1] else f"{file}@-1")
    if last.atoms is None:
        raise ValueError(f"{file}: {last.error}")
    return last.atoms
