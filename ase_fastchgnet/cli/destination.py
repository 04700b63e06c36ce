"""Where structures go that a command has changed: all into one file, or each into its own in a folder."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .inputs import Input
from .outputs import check_free, check_suffix, is_poscar, suffix_of
from .results import ONE_STRUCTURE, RESULT_SUFFIXES, Row, results_file

if TYPE_CHECKING:
    from ase import Atoms

Put = Callable[[int, "Atoms | None", Row], None]  # number of the structure, what became of it if it lives, its row

SUFFIXES = (*RESULT_SUFFIXES, *ONE_STRUCTURE)


def check_file(out: Path | None, *, overwrite: bool) -> None:
    """What can be found wrong with `out` before anything is read, if it is a file, is wrong usage."""
    if out is not None and not is_folder(out):
        check_suffix(out, SUFFIXES)
        check_free(out, overwrite=overwrite)


def destination(
    out: Path | None, format: str, inputs: Sequence[Input], *, overwrite: bool
) -> AbstractContextManager[Put]:
    """Takes each structure by its number, in any order; wrong usage if they do not fit, or files are in the way.

    A file, which `check_file` has seen, holds them in order and appears when all are there; in a folder, each one
    appears when it is put.
    """
    if out is None:
        return nullcontext(lambda number, atoms, row: None)
    if is_folder(out):
        paths = [out / f"{stem}.{format}" for stem in stems(inputs)]
        check_free(*paths, summary_of(out), overwrite=overwrite)
        return nullcontext(lambda number, atoms, row: _write(paths[number], atoms, row))
    if suffix_of(out) in ONE_STRUCTURE and len(inputs) > 1:
        raise typer.BadParameter(
            f"{out} holds one structure, and there are {len(inputs)}; name a folder (relaxed/) or an .extxyz file",
            param_hint="'--out'",
        )
    return _in_order(out)


def is_folder(out: Path) -> bool:
    """Whether `--out` names a folder: one that exists, or a name without a suffix."""
    return out.is_dir() or not suffix_of(out)


def summary_of(folder: Path) -> Path:
    """Where a command writes its table when it fills a folder."""
    return folder / "summary.csv"


def stems(inputs: Sequence[Input]) -> list[str]:
    """A file name for each structure: that of its file, with the folders in front where that is not unique."""
    short = [_stem(one) for one in inputs]
    count = Counter(short)
    pairs = zip(inputs, short, strict=True)
    names = ["-".join([*_folders(one), stem]) if count[stem] > 1 else stem for one, stem in pairs]
    seen: Counter[str] = Counter()
    for n, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[n] = f"{name}-{seen[name]}"
    return names


def _stem(one: Input) -> str:
    stem = _stem_of_poscar(one) if is_poscar(one.path) else one.path.stem
    return stem if one.frame is None else f"{stem}_{one.frame}"


def _stem_of_poscar(one: Input) -> str:
    """What distinguishes it from other POSCARs; ASE takes any file with POSCAR in its name for one."""
    rest = re.sub("POSCAR|CONTCAR", "", one.path.name.removesuffix(".vasp")).strip("._-")
    return rest or one.atoms.get_chemical_formula()


def _folders(one: Input) -> list[str]:
    return [part for part in one.path.parent.parts if part not in (one.path.anchor, "..")]


def _write(path: Path, atoms: "Atoms | None", row: Row) -> None:
    if atoms is not None:
        with results_file(path) as add:
            add(atoms, row)


@contextmanager
def _in_order(path: Path) -> Iterator[Put]:
    waiting: dict[int, tuple[Atoms | None, Row]] = {}
    n_added = 0
    with results_file(path) as add:

        def put(number: int, atoms: "Atoms | None", row: Row) -> None:
            nonlocal n_added
            waiting[number] = atoms, row
            while n_added in waiting:
                atoms, row = waiting.pop(n_added)
                n_added += 1
                if atoms is not None:
                    add(atoms, row)

        yield put
