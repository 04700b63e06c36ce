"""Structures from wherever they are, one at a time: lists, files, folders, databases."""

import fnmatch
import glob
import itertools
import json
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
from ase import Atoms

from ase_fastchgnet.workflows.structures import as_atoms

JSON_LINES = (".jsonl", ".ndjson")
DATABASES = (".db",)
FRAMES = (".extxyz", ".xyz", ".traj", ".json", ".gz", ".xz", ".bz2", ".xml")  # any number of structures
ID_NAMES = ("id", "material_id")  # in the info of a frame or the object of a line, if it says which structure it is


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """A structure and its name, or why there is none."""

    id: str
    atoms: Atoms | None
    error: str | None = None  # set if atoms is None
    path: Path | None = None  # the file it comes from
    frame: int | None = None  # which of several in that file


def read_source(source: Any) -> Iterator[Entry]:
    """The structures of `source`, read as they are asked for; what cannot be read is an Entry with an error.

    `source` is an iterable of ase.Atoms or pymatgen Structures, or of (id, structure) pairs, whose ids are otherwise
    their numbers; or a path, or an iterable of paths: a file that ASE reads, FILE@INDEX for some of its frames, an ASE
    database (.db), a file with one structure as JSON on each line (.jsonl: what `Structure.as_dict()` of pymatgen
    gives, or numbers, positions, cell and pbc; perhaps as "structure" in an object with an "id"), a folder of such
    files, or a glob.
    """
    if isinstance(source, Atoms | Mapping):
        raise TypeError("expected several structures: [atoms] for a single one, .items() of a dictionary")
    for number, item in enumerate([source] if isinstance(source, str | Path) else source):
        if isinstance(item, str | Path):
            for file in expand(str(item)):
                yield from read_file(file)
            continue
        name, structure = item if isinstance(item, tuple) else (str(number), item)
        try:
            yield Entry(id=str(name), atoms=as_atoms(structure))
        except ValueError as error:  # partial occupancy
            yield Entry(id=str(name), atoms=None, error=str(error))


def count(source: Any) -> int | None:
    """How many structures `read_source` will give, as far as that is known without reading them; None if it is not.

    A file of a kind that mostly holds one structure counts as one.
    """
    if isinstance(source, str | Path):
        return count([source])
    if not isinstance(source, Sequence):
        return None
    total = 0
    for item in source:
        numbers = [_count_file(file) for file in expand(str(item))] if isinstance(item, str | Path) else [1]
        if None in numbers:
            return None
        total += sum(n or 0 for n in numbers)
    return total


def check_apart(out: Path, source: Any) -> None:
    """ValueError if `out` is one of the files of `source`, which it would replace, or is read with them."""
    names = [source] if isinstance(source, str | Path) else source if isinstance(source, Sequence) else []
    for name in names:
        if isinstance(name, str | Path):
            path = Path(split_index(str(name))[0])
            within = fnmatch.fnmatch(str(out.resolve()), str(path.resolve()))  # for a glob as for a file
            if within or (path.is_dir() and out.parent.resolve() == path.resolve()):
                raise ValueError(f"{out} is in the source, {name}: choose another place for the results")


def expand(name: str) -> list[str]:
    """The files that `name` means, sorted, each with the @INDEX it has: those of a folder or of a glob, or itself."""
    path, index = split_index(name)
    found = [path]
    if Path(path).is_dir():
        found = sorted(str(file) for file in Path(path).iterdir() if file.is_file() and file.name[0] != ".")
    elif glob.has_magic(path) and not Path(path).exists():
        found = sorted(glob.glob(path, recursive=True))
    return [f"{file}@{index}" if index else file for file in found] or [name]


def read_file(name: str) -> Iterator[Entry]:
    """All structures of one file, or those that FILE@INDEX means; an Entry with an error where it cannot be read."""
    path = Path(split_index(name)[0])
    try:
        _require_file(path)
        kind = path.suffix.lower()
        if kind in (*DATABASES, *JSON_LINES):
            yield from _chosen(_rows(path) if kind in DATABASES else _lines(path), split_index(name)[1])
        else:
            yield from _frames(name)
    except (ValueError, OSError, sqlite3.Error) as error:
        yield Entry(id=name, atoms=None, error=str(error), path=path)


def split_index(name: str) -> tuple[str, str]:
    """The path and the index of FILE@INDEX."""
    path, at, index = name.rpartition("@")
    return (path, index) if at and not Path(name).exists() else (name, "")


def _frames(name: str) -> Iterator[Entry]:
    """The frames of a file that ASE reads; ValueError says what is wrong with it."""
    path, index = split_index(name)
    which = _parse_index(index)
    frames = _read(path, which)
    first, second = next(frames, None), next(frames, None)
    if first is None:
        raise ValueError(f"there is no frame {index} in it" if index else "there is no structure in it")
    numbers = itertools.count(*_start_and_step(which))
    for atoms in itertools.chain([first], [] if second is None else [second], frames):
        frame = None if second is None else next(numbers)
        given = next((str(atoms.info[key]) for key in ID_NAMES if key in atoms.info), None)
        label = given or (name if frame is None else f"{path}@{frame}")
        try:
            _require_full_occupancy(atoms)
        except ValueError as error:
            yield Entry(id=label, atoms=None, error=str(error), path=Path(path), frame=frame)
            continue
        _forget_symmetry(atoms)
        yield Entry(id=label, atoms=atoms, path=Path(path), frame=frame)


def _read(path: str, which: int | slice) -> Iterator[Atoms]:
    frames = ase.io.iread(path, index=which, do_not_split_by_at_sign=True)
    while True:
        try:
            with _warnings_of(path):
                atoms = next(frames, None)
        except Exception as error:  # ASE's readers raise anything at all on a damaged file
            text = str(error).strip().partition("\n")[0]
            raise ValueError(f"cannot be read: {type(error).__name__}{': ' if text else ''}{text}") from error
        if atoms is None:
            return
        yield atoms


@contextmanager
def _warnings_of(path: str) -> Iterator[None]:
    """Warnings say which file they are about."""
    with warnings.catch_warnings(record=True) as noticed:
        warnings.simplefilter("always")
        yield
    for warning in noticed:
        warnings.warn(f"{path}: {warning.message}", warning.category, stacklevel=2)


def _rows(path: Path) -> Iterator[Entry]:
    """The rows of an ASE database, by their numbers in it."""
    with ase.db.connect(path) as database:
        for row in database.select():
            yield Entry(id=str(row.id), atoms=row.toatoms(), path=path, frame=row.id)


def _lines(path: Path) -> Iterator[Entry]:
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            if not line.strip():
                continue
            label = f"{path}@{number}"
            try:
                found = json.loads(line)
                label = next((str(found[key]) for key in ID_NAMES if key in found), label)
                yield Entry(id=label, atoms=_from_json(found.get("structure", found)), path=path, frame=number)
            except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
                reason = f"line {number + 1} holds no structure: {type(error).__name__}: {error}"
                yield Entry(id=label, atoms=None, error=reason, path=path, frame=number)


def _from_json(found: dict[str, Any]) -> Atoms:
    """Atoms from pymatgen's or from plain arrays; LookupError, ValueError or TypeError if it is neither."""
    if "lattice" not in found:
        pbc, cell = found.get("pbc", "cell" in found), found.get("cell")
        key = "numbers" if "numbers" in found else "symbols"
        return Atoms(**{key: found[key]}, positions=found["positions"], cell=cell, pbc=pbc)
    sites = found["sites"]
    if any(len(site["species"]) != 1 or site["species"][0].get("occu", 1) != 1 for site in sites):
        raise ValueError("sites with partial occupancy cannot be evaluated")
    return Atoms(
        symbols=[site["species"][0]["element"] for site in sites],
        scaled_positions=np.array([site["abc"] for site in sites]),
        cell=found["lattice"]["matrix"],
        pbc=found["lattice"].get("pbc", True),
    )


def _chosen(entries: Iterator[Entry], index: str) -> Iterable[Entry]:
    """Those that an index means; ValueError if there is none."""
    which = _parse_index(index)
    if which == slice(None):
        return entries
    if isinstance(which, slice) and which.stop is not None and min(which.start or 0, which.stop, which.step or 1) >= 0:
        return itertools.islice(entries, which.start, which.stop, which.step)
    found = list(entries)
    try:
        return found[which] if isinstance(which, slice) else [found[which]]
    except IndexError:
        raise ValueError(f"there is no structure {index} in it") from None


def _count_file(name: str) -> int | None:
    path, index = split_index(name)
    kind = Path(path).suffix.lower()
    try:
        which = _parse_index(index)
    except ValueError:
        return 1  # that it is no index
    if isinstance(which, int) or not Path(path).exists():
        return 1
    if kind in JSON_LINES:
        with open(path, "rb") as file:
            n = sum(not line.isspace() for line in file)
    elif kind in DATABASES:
        try:
            with ase.db.connect(path) as database:
                n = database.count()
        except sqlite3.Error:
            return 1  # that it is damaged
    elif kind in FRAMES:
        return None
    else:
        n = 1
    return len(range(n)[which])


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise ValueError("there is no file in this folder")
    if not path.exists():
        raise ValueError("matches no file" if glob.has_magic(str(path)) else "no such file")


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


def _require_full_occupancy(atoms: Atoms) -> None:
    """ASE keeps one species of a site that several share, and says so in `info` only."""
    sites = atoms.info.get("occupancy", {}).values()
    if any(len(site) > 1 or any(abs(share - 1) > 1e-3 for share in site.values()) for site in sites):
        raise ValueError(
            "has sites with partial occupancy, which cannot be evaluated; order it first, for example with pymatgen's "
            "OrderDisorderedStructureTransformation"
        )


def _forget_symmetry(atoms: Atoms) -> None:
    """What ASE has kept of a CIF is not true any more of a structure that has moved."""
    for key in ("occupancy", "spacegroup", "unit_cell"):
        atoms.info.pop(key, None)
    atoms.arrays.pop("spacegroup_kinds", None)
