"""Files that grow while a run goes on, and can be cut back to where they were at an earlier moment."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import ase.io
from ase import Atoms
from ase.io.extxyz import write_extxyz

FLUSH_SECONDS = 1.0  # so long may a row stay unseen
# The start of a .traj says how many frames follow and where the list of their places is.
TRAJ_HEAD = 56

Mark = Sequence[Any]  # size in bytes; of a .traj also its first bytes, in hexadecimal.  JSON-ready
START: Mark = (0, "")


class Text:
    """A text file; rows reach the disk once a second, and whenever its end is marked."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a", encoding="utf-8", newline="")  # noqa: SIM115
        self._flushed = time.monotonic()

    def write(self, text: str) -> None:
        """Append `text`."""
        self._file.write(text)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def mark(self) -> Mark:
        """The present end, when all before it is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell(), ""

    def close(self) -> None:
        """Write what is left."""
        self._file.close()


class Frames(Protocol):
    """A trajectory that grows."""

    def append(self, atoms: Atoms) -> None:
        """One more frame, with its momenta and results."""

    def mark(self) -> Mark:
        """The present end, when all before it is on the disk."""

    def close(self) -> None:
        """Write what is left."""


class ExtxyzFrames:
    """An extxyz file; numbers have eight decimals."""

    def __init__(self, path: Path) -> None:
        self._text = Text(path)
        self.mark, self.close = self._text.mark, self._text.close

    def append(self, atoms: Atoms) -> None:
        """One more frame, with its momenta and results."""
        write_extxyz(self._text, atoms)


class TrajFrames:
    """A file of ASE's own format; numbers as they are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = ase.io.Trajectory(str(path), "a")

    def append(self, atoms: Atoms) -> None:
        """One more frame, with its momenta and results."""
        self._writer.write(atoms)

    def mark(self) -> Mark:
        """The present end, when all before it is on the disk."""
        with open(self._path, "rb") as file:
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_size, file.read(TRAJ_HEAD).hex()

    def close(self) -> None:
        """Nothing is left to write."""
        self._writer.close()


def cut(path: Path, mark: Mark) -> None:
    """Make the file what it was when its end was marked; ValueError if it is shorter than that."""
    size, head = mark
    if size == 0:
        path.write_bytes(b"")
        return
    if not path.exists() or path.stat().st_size < size:
        raise ValueError(
            f"{path} is missing or shorter than when the checkpoint next to it was written: restore it, or start the "
            "run again with overwrite"
        )
    with open(path, "r+b") as file:
        file.truncate(size)
        file.write(bytes.fromhex(head))
