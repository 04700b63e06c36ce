"""Rows of arrays, appended one by one and then read from memory or from memory-mapped `.npy` files."""

import os
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

Rows = NDArray[Any]


class Column(Protocol):
    """Rows of one shape and dtype, written once from the first to the last."""

    def append(self, rows: Rows) -> None:
        """Adds rows at the end."""

    def finish(self) -> Rows:
        """All rows; nothing can be added any more."""

    def close(self) -> None:
        """Ends it, finished or not."""


class InMemory:
    """A Column that becomes one array."""

    def __init__(self, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        self._parts: list[Rows] = [np.empty((0, *shape), dtype=dtype)]
        self._dtype = dtype

    def append(self, rows: Rows) -> None:
        self._parts.append(np.asarray(rows, dtype=self._dtype))

    def finish(self) -> Rows:
        return np.concatenate(self._parts)

    def close(self) -> None:
        self._parts = []


class OnDisk:
    """A Column that becomes a `.npy` file, so that no more than one append is in memory at a time."""

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        self._path, self._dtype, self._shape, self._n_rows = path, np.dtype(dtype), shape, 0
        self._file: IO[bytes] = open(path, "wb")  # noqa: SIM115, see close
        self._write_header()

    def append(self, rows: Rows) -> None:
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).data)
        self._n_rows += len(rows)

    def finish(self) -> Rows:
        self._file.seek(0)
        self._write_header()  # numpy leaves room in it for the number of rows to grow, so that its length stays
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        return load(self._path)

    def close(self) -> None:
        self._file.close()

    def _write_header(self) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._n_rows, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)


def load(path: Path) -> Rows:
    """The rows of a `.npy` file, memory-mapped, to be read only."""
    rows: Rows = np.load(path, mmap_mode="r", allow_pickle=False)
    return rows
