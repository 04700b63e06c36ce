"""What a run writes while it goes on: CSV files, and the same numbers for TensorBoard.

A run that is continued cuts its CSV files back to where its state was saved, so that no row is there twice.
"""

import csv
import io
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

_log = logging.getLogger(__name__)

STEPS = "steps.csv"
EPOCHS = "epochs.csv"
FILES = (STEPS, EPOCHS)


class Logs:
    """The logs in a folder; rows of one file have the same names in the same order."""

    def __init__(self, folder: Path, files: Mapping[str, int], step: int) -> None:
        """`files`: bytes of each file that are kept; TensorBoard forgets what was said of later steps."""
        self._files: dict[str, IO[bytes]] = {}
        for name in FILES:
            path = folder / name
            kept = files.get(name, 0)
            if kept and (not path.exists() or path.stat().st_size < kept):
                raise ValueError(
                    f"{path} is missing or shorter than when the state beside it was saved: restore it, or start again "
                    "with overwrite"
                )
            file = open(path, "r+b" if kept else "w+b")  # noqa: SIM115, closed by close
            file.truncate(kept)
            file.seek(kept)
            self._files[name] = file
        self._tensorboard = _tensorboard(folder / "tensorboard", step)

    def step(self, step: int, row: Mapping[str, float]) -> None:
        """A row of steps.csv."""
        self._write(STEPS, {"step": step, **row})
        self._draw("train", row, step)

    def epoch(self, step: int, row: Mapping[str, float]) -> None:
        """A row of epochs.csv, written after `step` steps."""
        self._write(EPOCHS, row)
        self._draw("epoch", row, step)

    def marks(self) -> dict[str, int]:
        """The present size of each file in bytes, when all of it is on the disk."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        return {name: file.tell() for name, file in self._files.items()}

    def close(self) -> None:
        """Write what is left."""
        for file in self._files.values():
            file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _write(self, name: str, row: Mapping[str, float]) -> None:
        file, text = self._files[name], io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not file.tell():
            writer.writerow(row)
        writer.writerow([_cell(value) for value in row.values()])
        file.write(text.getvalue().encode())

    def _draw(self, group: str, row: Mapping[str, float], step: int) -> None:
        if self._tensorboard is not None:
            for name, value in row.items():
                if name not in ("step", "epoch") and value == value:
                    self._tensorboard.add_scalar(f"{group}/{name}", value, step)


def _cell(value: float) -> str:
    if value != value:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _tensorboard(folder: Path, step: int) -> Any:
    """A writer of TensorBoard's files; None where its package is not installed, which is said."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _log.info("no TensorBoard files without its package: pip install 'ase-fastchgnet[train]'")
        return None
    return SummaryWriter(str(folder), purge_step=step or None)
