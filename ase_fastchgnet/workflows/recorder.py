"""What a run of molecular dynamics leaves behind: log, trajectory and checkpoints, in files or in memory."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import ase.io
import numpy as np
from ase import Atoms
from ase.md.md import MolecularDynamics

from ase_fastchgnet.workflows.calculators import calculated, with_results
from ase_fastchgnet.workflows.ensembles import Ensemble
from ase_fastchgnet.workflows.restart import Checkpoint, check_same_run, load
from ase_fastchgnet.workflows.run_files import START, ExtxyzFrames, Frames, Mark, Text, TrajFrames, cut
from ase_fastchgnet.workflows.thermo import Thermo, columns_of, observe

_log = logging.getLogger(__name__)

CHECKPOINT, THERMO, FINAL, LAST_GOOD = "checkpoint.npz", "thermo.csv", "final.extxyz", "last_good.extxyz"
INTERVALS = ("trajectory_interval", "log_interval", "checkpoint_interval")
WRITERS: dict[str, Callable[[Path], Frames]] = {"extxyz": ExtxyzFrames, "traj": TrajFrames}


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where results go and how often; `md` says what each means."""

    folder: Path | None
    trajectory_format: Literal["extxyz", "traj"]
    trajectory_interval: int  # steps, as the next two
    log_interval: int
    checkpoint_interval: int
    resume: bool
    overwrite: bool

    def __post_init__(self) -> None:
        for name in INTERVALS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected a number of steps, 1 or more")
        if self.trajectory_format not in WRITERS:
            raise ValueError(f"trajectory_format={self.trajectory_format!r} is not one of {', '.join(WRITERS)}")
        if self.resume and (self.folder is None or self.overwrite):
            raise ValueError("resume continues what is in the folder `out`: give one, and no overwrite")

    def rounded(self, whole: Callable[[int], int]) -> "Output":
        """The same at intervals as `whole` has them."""
        intervals: dict[str, Any] = {name: whole(getattr(self, name)) for name in INTERVALS}
        return replace(self, **intervals)

    def trajectory(self) -> Path | None:
        """The file with the trajectory."""
        return self.folder and self.folder / f"trajectory.{self.trajectory_format}"

    def rhythm(self) -> dict[str, Any]:
        """What the files depend on."""
        return {name: getattr(self, name) for name in ("trajectory_format", "trajectory_interval", "log_interval")}

    def prepare(self, run: Mapping[str, Any]) -> Checkpoint | None:
        """Makes the folder; returns the checkpoint to go on from, None to start.  `run` says which run this is.

        FileExistsError if files are in the way, ValueError if the checkpoint is damaged or of another run.
        """
        if self.folder is None:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        names = (CHECKPOINT, THERMO, FINAL, LAST_GOOD, *(f"trajectory.{suffix}" for suffix in WRITERS))
        present = [path for path in (self.folder / name for name in names) if path.exists()]
        if self.overwrite:
            for path in present:  # the checkpoint first: it speaks of the others
                path.unlink()
        elif self.resume and self.folder / CHECKPOINT in present:
            checkpoint = load(self.folder / CHECKPOINT)
            check_same_run(self.folder / CHECKPOINT, checkpoint, run)
            _log.info("%s: going on from step %d", self.folder, checkpoint.step)
            return checkpoint
        elif present:
            remedy = "there is no checkpoint to resume from" if self.resume else "resume continues that run"
            raise FileExistsError(f"{present[0]} exists; {remedy}, overwrite replaces it, or choose another folder")
        return None


class Recorder:
    """Writes down a run as it goes on."""

    def __init__(
        self,
        dynamics: MolecularDynamics,
        ensemble: Ensemble,
        output: Output,
        rng: np.random.Generator,
        timestep: float,
        run: Mapping[str, Any],
        checkpoint: Checkpoint | None,
    ) -> None:
        self._dynamics, self._ensemble, self._output, self._rng, self._run = dynamics, ensemble, output, rng, run
        self._timestep = float(timestep)  # so that a file is the same for 2 and 2.0
        self.columns = columns_of(
            dynamics.atoms, conserved=ensemble.bath is not None, cell_moves=bool(ensemble.barostat)
        )
        self._last = checkpoint.step if checkpoint else 0  # step of the last checkpoint
        self.rows: list[list[float]] = []
        self.frames: list[Atoms] = []
        self._log: Text | None = None
        self._trajectory: Frames | None = None
        if output.folder is not None:
            if checkpoint is None:  # before the files, which without it could not be continued
                self._save_checkpoint({"log": START, "trajectory": START})
            self._open(checkpoint.files if checkpoint and checkpoint.step else {"log": START, "trajectory": START})

    def record(self, *, end: bool) -> None:
        """The present step, if it is due; `end` at the last step of the run."""
        step = self._dynamics.nsteps
        if step and step == self._last:
            return  # written down before the run was interrupted
        if step % self._output.log_interval == 0:
            self._add_row(step)
        if step % self._output.trajectory_interval == 0:
            self._add_frame()
        if self._log and self._trajectory and step and (end or step % self._output.checkpoint_interval == 0):
            self._save_checkpoint({"log": self._log.mark(), "trajectory": self._trajectory.mark()})
            self._last = step

    def frame(self) -> Atoms:
        """The present state with all that is calculated of it."""
        atoms = self._labelled()
        return with_results(atoms.copy(), calculated(atoms))

    def write(self, name: str, atoms: Atoms) -> None:
        """One structure in a file of its own, if there is a folder."""
        if self._output.folder is not None:
            ase.io.write(self._output.folder / name, atoms)

    def thermo(self) -> Thermo:
        """All that was logged; after `close`."""
        if self._output.folder is not None:
            return Thermo.read(self._output.folder / THERMO)
        return Thermo.from_rows(self.columns, self.rows)

    def close(self) -> None:
        """Write what is left."""
        if self._log and self._trajectory:
            self._log.close()
            self._trajectory.close()

    def _open(self, marks: Mapping[str, Mark]) -> None:
        trajectory = self._output.trajectory()
        assert self._output.folder is not None
        assert trajectory is not None
        cut(self._output.folder / THERMO, marks["log"])
        cut(trajectory, marks["trajectory"])
        self._log = Text(self._output.folder / THERMO)
        self._trajectory = WRITERS[self._output.trajectory_format](trajectory)
        if marks["log"][0] == 0:
            self._log.write(",".join(self.columns) + "\n")

    def _add_row(self, step: int) -> None:
        bath = self._ensemble.bath(self._dynamics) if self._ensemble.bath else 0.0
        row = observe(self._dynamics.atoms, self.columns, step=step, time=step * self._timestep, bath=bath)
        if self._log:
            self._log.write(",".join(map(repr, row)) + "\n")
        else:
            self.rows.append(row)

    def _add_frame(self) -> None:
        if self._trajectory:
            self._trajectory.append(self._labelled())
        else:
            self.frames.append(self.frame())

    def _labelled(self) -> Atoms:
        step = self._dynamics.nsteps
        self._dynamics.atoms.info.update(step=step, time_fs=step * self._timestep)
        return self._dynamics.atoms

    def _save_checkpoint(self, files: Mapping[str, Mark]) -> None:
        assert self._output.folder is not None
        state = self._ensemble.state
        Checkpoint.of(self._dynamics, state, self._rng, self._run, files).save(self._output.folder / CHECKPOINT)
