"""Files that a command writes: checked before the work, complete or not there at all."""

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer


def suffix_of(path: Path) -> str:
    """The suffix that says what to write; of POSCAR and CONTCAR, ".vasp"."""
    return ".vasp" if is_poscar(path) else path.suffix.lower()


def is_poscar(path: Path) -> bool:
    """Whether the file is a POSCAR by its name, as ASE sees it."""
    return "POSCAR" in path.name or "CONTCAR" in path.name


def check_folder(folder: Path, names: Collection[str], *, overwrite: bool) -> None:
    """Wrong usage if `folder` cannot hold files of these names, or has one that may not be replaced."""
    if folder.exists() and not folder.is_dir():
        raise typer.BadParameter(f"{folder} is a file; name a folder", param_hint="'--out'")
    check_free(*(folder / name for name in names), overwrite=overwrite)


def check_suffix(path: Path, known: Collection[str], *, option: str = "--out") -> str:
    """The suffix of `path`; wrong usage unless it is among `known`."""
    suffix = suffix_of(path)
    if suffix not in known:
        what = f"unknown suffix {suffix!r}" if suffix else "no suffix"
        raise typer.BadParameter(f"{path}: {what}; use {', '.join(known)}", param_hint=f"'{option}'")
    return suffix


def check_free(*paths: Path, overwrite: bool, option: str = "--out") -> None:
    """Wrong usage if a file exists and may not be replaced; folders for the files are made."""
    for path in paths:
        if path.is_dir():
            raise typer.BadParameter(f"{path} is a folder; name a file", param_hint=f"'{option}'")
        if path.exists() and not overwrite:
            raise typer.BadParameter(
                f"{path} exists; choose another name, or replace it with --overwrite", param_hint=f"'{option}'"
            )
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path of the same name to write to; the file appears at `path` when all of it is written, if anything is."""
    with tempfile.TemporaryDirectory(prefix=".fastchgnet-", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        if unfinished.exists():
            os.replace(unfinished, path)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to; its files appear in `folder` when all are written."""
    with tempfile.TemporaryDirectory(prefix=".fastchgnet-", dir=folder) as unfinished:
        yield Path(unfinished)
        for path in Path(unfinished).iterdir():
            os.replace(path, folder / path.name)
