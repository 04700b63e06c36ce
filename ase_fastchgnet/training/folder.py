"""The folder of a run: which file is what."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import numpy as np

import ase_fastchgnet
from ase_fastchgnet.training.config import TrainConfig
from ase_fastchgnet.training.errors import Errors, Parity
from ase_fastchgnet.training.logs import FILES
from ase_fastchgnet.training.loop import MODEL, STATE
from ase_fastchgnet.training.report import plot_curves, plot_parity

CONFIG, RUN, ERRORS = "config.json", "run.json", "errors.json"
CURVES = "curves.png"
_ERRORS = [field.name for field in fields(Errors)]
_log = logging.getLogger(__name__)


class RunFolder:
    """Where a run keeps its things.

    config.json         the settings, which `TrainConfig.read` reads
    run.json            data (checksums), model and version
    graphs/             graphs of all data, made once
    steps.csv           losses and errors every few steps        epochs.csv  and after each epoch
    tensorboard/        the same
    state.safetensors   from which the run goes on
    model.safetensors   the best weights so far, and model.json
    before/             errors and predictions before the first step
    errors.json         errors before and after                  *.png       pictures
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def model(self) -> Path:
        return self.path / MODEL

    def graphs(self, part: str) -> Path:
        return self.path / "graphs" / part

    def prepare(self, *, resume: bool, overwrite: bool) -> None:
        """Make the folder; FileExistsError if it has an earlier run, and nothing is said of what to do with it."""
        if resume and overwrite:
            raise ValueError("resume goes on with what is there, and overwrite replaces it; choose one")
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / RUN).exists() and not (self.path / STATE).exists():
            return
        if not (resume or overwrite):
            raise FileExistsError(
                f"{self.path} holds a run already; go on with it with resume, replace it with overwrite, or choose "
                "another folder"
            )
        if overwrite:
            for name in ("before", "tensorboard"):
                shutil.rmtree(self.path / name, ignore_errors=True)
            for path in (*(self.path / name for name in (STATE, RUN, ERRORS, MODEL, *FILES)), *self.path.glob("*.png")):
                path.unlink(missing_ok=True)

    def describe(self, config: TrainConfig, run: Mapping[str, Any]) -> None:
        """Write down what the run is."""
        config.write(self.path / CONFIG)
        described = {"version": ase_fastchgnet.__version__, "model": run["model"], "data": run["data"]}
        (self.path / RUN).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")

    def before(self, part: str) -> tuple[Errors, Parity] | None:
        """What was measured before the first step, if it was."""
        path = self.path / "before" / f"{part}.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as file:
            errors = Errors(**dict(zip(_ERRORS, file["errors"].tolist(), strict=True)))
            return errors, Parity(*(file[name] for name in Parity._fields))

    def keep_before(self, part: str, found: tuple[Errors, Parity]) -> None:
        """Keep it for a continuation."""
        path = self.path / "before" / f"{part}.npz"
        path.parent.mkdir(exist_ok=True)
        errors, parity = found
        unfinished = path.with_name(f".{path.name}")
        with open(unfinished, "wb") as file:
            np.savez_compressed(file, errors=np.array(astuple(errors)), **parity._asdict())
        unfinished.replace(path)

    def finish(
        self,
        history: Sequence[Mapping[str, float | None]],
        before: Mapping[str, tuple[Errors, Parity]],
        after: Mapping[str, tuple[Errors, Parity]],
    ) -> None:
        """Errors as JSON, and pictures if there is matplotlib."""
        errors = {
            name: {"before": before[name][0].to_dict(), "after": found[0].to_dict()} for name, found in after.items()
        }
        (self.path / ERRORS).write_text(json.dumps(errors, indent=2) + "\n", encoding="utf-8")
        try:
            figure, _ = plot_curves(history)
        except ImportError as error:  # no reason to end a long run with an error
            _log.warning("no pictures of the run: %s", error)
            return
        figure.savefig(self.path / CURVES, dpi=150)
        for name, found in after.items():
            figure, _ = plot_parity(before[name], found)
            figure.savefig(self.path / f"parity-{name}.png", dpi=150)
