"""Results of many structures on disk, so that a run killed at any moment loses and repeats nothing that is there."""

import errno
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ase.io
import numpy as np
from ase.io.extxyz import write_extxyz

from ase_fastchgnet.workflows.calculators import with_results

LEAST_FREE = 10_000_000  # bytes; the results of a thousand structures or so
SYNC_SECONDS = 1.0  # between two waits for the disk, each of which takes as long as evaluating some structure
Record = dict[str, Any]  # of one structure; "index" and "id" say which, "error" why there is no result


@dataclass(frozen=True, slots=True)
class Done:
    """A record that is on the disk."""

    index: int  # of the structure in its source
    id: str | None  # None where the file does not keep it as it was
    succeeded: bool
    model: str | None  # whose numbers they are
    formula: str | None


class ResultFile(Protocol):
    """A file or folder that grows by whole records."""

    def done(self) -> Iterator[Done]:
        """What is there already."""

    def append(self, records: Sequence[Record]) -> None:
        """Add records, which are on the disk a moment later, or when the file is closed."""

    def close(self) -> None:
        """No more records."""


def open_results(path: Path, *, resume: bool, overwrite: bool) -> ResultFile:
    """The results at `path`, by its suffix: .jsonl, .extxyz, or .parquet, a folder of Parquet files.

    FileExistsError if there are some and neither `resume` nor `overwrite` is set, ValueError for another suffix, and
    OSError if it cannot be written, which is tried here, or if the disk is nearly full.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: unknown suffix {path.suffix!r}; results go to {', '.join(FORMATS)}")
    if resume and overwrite:
        raise ValueError("resume goes on with what is there, overwrite replaces it: choose one")
    if path.exists() and not (resume or overwrite):
        raise FileExistsError(f"{path} exists: resume continues it, overwrite replaces it, or choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(path.parent).free) < LEAST_FREE:
        raise OSError(errno.ENOSPC, f"only {free / 1e6:.1f} MB are free for results; choose another disk", str(path))
    return FORMATS[path.suffix.lower()](path, fresh=not resume)


class _Growing:
    """A file of which only the end can be torn by a kill; that is cut off."""

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self._file = open(path, "wb+" if fresh else "ab+")  # noqa: SIM115
        self._file.truncate(self._end_of_last_record())
        self._synced = time.monotonic()

    def append(self, records: Sequence[Record]) -> None:
        """Add records; the death of this process cannot take them away, that of the machine the last second's only."""
        with _disk_full_means(self._file.name):
            self._file.write(b"".join(map(self._bytes, records)))
            self._file.flush()
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self._sync()

    def close(self) -> None:
        """No more records."""
        with _disk_full_means(self._file.name), closing(self._file):
            self._file.flush()
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _end_of_last_record(self) -> int:
        raise NotImplementedError

    def _bytes(self, record: Record) -> bytes:
        raise NotImplementedError


class JsonLines(_Growing):
    """One record as a JSON object on each line."""

    def done(self) -> Iterator[Done]:
        """What is there already."""
        with open(self._file.name, "rb") as file:
            for line in file:
                record = json.loads(line)
                succeeded = "error" not in record
                yield Done(record["index"], record["id"], succeeded, record.get("model"), record.get("formula"))

    def _end_of_last_record(self) -> int:
        self._file.seek(0)
        return sum(len(line) for line in self._file if line.endswith(b"\n"))

    def _bytes(self, record: Record) -> bytes:
        return json.dumps(_listed(record)).encode() + b"\n"


class Extxyz(_Growing):
    """Structures with their results, as ASE reads them; what failed is not in it, and is tried again."""

    def done(self) -> Iterator[Done]:
        """What is there already."""
        for atoms in ase.io.iread(self._file.name, index=":", format="extxyz"):
            # Of the id, ASE has made a number or a truth value if it could.
            yield Done(int(atoms.info["index"]), None, True, atoms.info.get("model"), atoms.get_chemical_formula())

    def _end_of_last_record(self) -> int:
        self._file.seek(0)
        end = 0
        while (lines := [self._file.readline()])[0]:
            lines += [self._file.readline() for _ in range(int(lines[0]) + 1)]
            if not lines[-1].endswith(b"\n"):
                break
            end += sum(map(len, lines))
        return end

    def _bytes(self, record: Record) -> bytes:
        if "error" in record:
            return b""
        atoms = record["atoms"].copy()
        atoms.info = {name: record[name] for name in ("id", "index", "model")}
        names = {"energy_eV": "energy", "energies_eV": "energies", "forces_eV_A": "forces", "magmoms_muB": "magmoms"}
        names["stress_eV_A3"] = "stress"
        results = {name: record[key] for key, name in names.items() if record.get(key) is not None}
        text = io.StringIO()
        write_extxyz(text, with_results(atoms, results))
        return text.getvalue().encode()


class ParquetFolder:
    """A folder of Parquet files that pandas, polars, pyarrow and Dask read as one table; each appears complete.

    Records are held back for a while, or there would be thousands of files: of a run that is killed, those are lost.
    """

    HELD_SECONDS = 2.0

    def __init__(self, path: Path, *, fresh: bool) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ImportError("Parquet needs pyarrow: pip install 'ase-fastchgnet[parquet]'") from error
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        self._path = path
        path.mkdir(exist_ok=True)
        if fresh:
            for part in self._parts():
                part.unlink()
        self._next = 1 + max((int(part.stem.partition("-")[2]) for part in self._parts()), default=-1)
        with tempfile.NamedTemporaryFile(dir=path, prefix="."):  # it can be written to
            pass
        self._held: list[Record] = []
        self._written = time.monotonic()

    def done(self) -> Iterator[Done]:
        """What is there already."""
        for part in self._parts():
            table = self._parquet.read_table(part, columns=["index", "id", "error", "model", "formula"])
            for index, name, error, model, formula in zip(*(c.to_pylist() for c in table.columns), strict=True):
                yield Done(index, name, error is None, model, formula)

    def append(self, records: Sequence[Record]) -> None:
        """Add records, which HELD_SECONDS later at the latest are on the disk."""
        self._held += map(_listed, records)
        if time.monotonic() - self._written > self.HELD_SECONDS:
            self._write()

    def close(self) -> None:
        """No more records; what a kill left unfinished goes."""
        if self._held:
            self._write()
        for unfinished in self._path.glob(".part-*.unfinished"):
            unfinished.unlink()

    def _write(self) -> None:
        table = self._arrow.Table.from_pylist(self._held, schema=self._schema())
        unfinished = self._path / f".part-{self._next:06d}.unfinished"
        with _disk_full_means(self._path), open(unfinished, "wb") as file:
            self._parquet.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self._path / f"part-{self._next:06d}.parquet")
        self._next += 1
        self._held.clear()
        self._written = time.monotonic()

    def _parts(self) -> list[Path]:
        return sorted(self._path.glob("part-*.parquet"))

    def _schema(self) -> Any:
        a = self._arrow
        vector = a.list_(a.float64())
        return a.schema(
            [
                ("id", a.string()),
                ("index", a.int64()),
                ("model", a.string()),
                ("formula", a.string()),
                ("n_atoms", a.int64()),
                ("energy_eV", a.float64()),
                ("energy_eV_per_atom", a.float64()),
                ("energies_eV", vector),
                ("forces_eV_A", a.list_(vector)),
                ("stress_eV_A3", vector),
                ("magmoms_muB", vector),
                ("error", a.string()),
            ]
        )


FORMATS: dict[str, type[JsonLines] | type[Extxyz] | type[ParquetFolder]] = {
    ".jsonl": JsonLines,
    ".extxyz": Extxyz,
    ".parquet": ParquetFolder,
}


@contextmanager
def _disk_full_means(path: str | Path) -> Iterator[None]:
    """The system's error when a disk is full does not say what to do."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror}: free some space, and resume; what is finished is on disk"
        raise OSError(error.errno, reason, str(path)) from error


def _listed(record: Mapping[str, Any]) -> Record:
    """The record as plain numbers and lists, without the structure and what is None."""
    listed = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in record.items()}
    return {key: value for key, value in listed.items() if value is not None and key != "atoms"}
