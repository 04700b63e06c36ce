"""From what a user types to structures: files, FILE@INDEX and globs, read one after the other."""

import glob
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .report import Report, warnings_name

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Input:
    """A structure and how to refer to it."""

    name: str  # the file as given, with @INDEX if it has several frames
    path: Path  # the file
    frame: int | None  # which of several
    atoms: "Atoms"


def expand(files: Sequence[str]) -> list[str]:
    """`files` with globs replaced by the files they match, sorted; one that matches nothing stays as it is."""
    return list(itertools.chain.from_iterable(_matches(file) for file in files))


def read_structures(
    files: Sequence[str], report: Report, n_read: Callable[[int], None] = lambda n: None
) -> Iterator[Input]:
    """All frames of all `files`, one at a time; what cannot be used is reported and left out.

    `n_read` is told how many files are behind us.
    """
    for n, file in enumerate(files):
        n_read(n)
        try:
            yield from _frames(file)
        except ValueError as error:
            report.failed(file, error)
    n_read(len(files))


def read_structure(file: str) -> "Atoms":
    """The last frame of `file`, or the one that FILE@INDEX means; ValueError if that cannot be used."""
    try:
        *_, last = _frames(file if _split(file)[1] else f"{file}@-1")
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return last.atoms


def _matches(file: str) -> list[str]:
    path, index = _split(file)
    if Path(path).exists() or not glob.has_magic(path):
        return [file]
    return [f"{match}@{index}" if index else match for match in sorted(glob.glob(path, recursive=True))] or [file]


def _split(file: str) -> tuple[str, str]:
    """The path and the index of FILE@INDEX."""
    path, at, index = file.rpartition("@")
    return (path, index) if at and not Path(file).exists() else (file, "")


def _frames(file: str) -> Iterator[Input]:
    """The frames of one file; ValueError says what is wrong with it."""
    name, index = _split(file)
    path = Path(name)
    _require_file(path)
    which = _parse_index(index)
    frames = _read(path, which, file)
    first, second = next(frames, None), next(frames, None)
    if first is None:
        raise ValueError(f"there is no frame {index} in it" if index else "there is no structure in it")
    numbers = itertools.count(*_start_and_step(which))
    for atoms in itertools.chain([first], [] if second is None else [second], frames):
        _require_full_occupancy(atoms)
        _forget_symmetry(atoms)
        frame = None if second is None else next(numbers)
        yield Input(name=file if frame is None else f"{name}@{frame}", path=path, frame=frame, atoms=atoms)


def _read(path: Path, which: int | slice, name: str) -> Iterator["Atoms"]:
    from ase.io import iread

    frames = iread(str(path), index=which, do_not_split_by_at_sign=True)
    while True:
        try:
            with warnings_name([name]):
                atoms = next(frames, None)
        except Exception as error:  # ASE's readers raise anything at all on a damaged file
            text = str(error).strip().partition("\n")[0]
            raise ValueError(f"cannot be read: {type(error).__name__}{': ' if text else ''}{text}") from error
        if atoms is None:
            return
        yield atoms


def _start_and_step(which: int | slice) -> tuple[int, int]:
    """Number of the first frame and from one to the next; counted from the end if negative."""
    if isinstance(which, int):
        return which, 1
    step = which.step or 1
    return (0 if step > 0 else -1) if which.start is None else which.start, step


def _parse_index(index: str) -> int | slice:
    try:
        if ":" in index:
            return slice(*(int(part) if part else None for part in index.split(":")))
        return int(index) if index else slice(None)
    except (ValueError, TypeError):
        raise ValueError(f"@{index} is no index; use @3, @-1, @:10 or @::5") from None


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"is a folder; name the files in it: '{path}/*'")
    if not path.exists():
        raise ValueError("matches no file" if glob.has_magic(str(path)) else "no such file")


def _require_full_occupancy(atoms: "Atoms") -> None:
    """ASE keeps one species of a site that several share, and says so in `info` only."""
    sites = atoms.info.get("occupancy", {}).values()
    if any(len(site) > 1 or any(abs(share - 1) > 1e-3 for share in site.values()) for site in sites):
        raise ValueError(
            "has sites with partial occupancy, which cannot be evaluated; order it first, for example with pymatgen's "
            "OrderDisorderedStructureTransformation"
        )


def _forget_symmetry(atoms: "Atoms") -> None:
    """What ASE has kept of a CIF is not true any more of a structure that has moved."""
    for key in ("occupancy", "spacegroup", "unit_cell"):
        atoms.info.pop(key, None)
    atoms.arrays.pop("spacegroup_kinds", None)
