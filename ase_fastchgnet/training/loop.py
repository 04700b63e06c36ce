"""The training loop: batches → losses → gradients → weights, written down so that a killed run goes on exactly."""

import logging
import math
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ase_fastchgnet.model.checkpoint import save_checkpoint
from ase_fastchgnet.model.network import Network
from ase_fastchgnet.progress import Meter
from ase_fastchgnet.training.balance import BalancedBatchSampler
from ase_fastchgnet.training.config import TrainConfig
from ase_fastchgnet.training.dataset import Batch, GraphDataset, prefetch
from ase_fastchgnet.training.distributed import Ranks
from ase_fastchgnet.training.errors import NAMES, Errors, errors_of, evaluate, loss_weights, sums_of
from ase_fastchgnet.training.logs import Logs
from ase_fastchgnet.training.objective import label_counts, loss
from ase_fastchgnet.training.optimiser import MovingAverage, learning_rate, make_optimiser, trained
from ase_fastchgnet.training.state import Position, copy_into, save_state

_log = logging.getLogger(__name__)

LOG_STEPS = 10  # steps between two looks at losses, each of which waits for the device and for all processes
STATE = "state.safetensors"
MODEL = "model.safetensors"


class TrainingError(RuntimeError):
    """Training cannot go on: its numbers are no numbers any more."""


class Course:
    """The weights on their way: network, optimiser, moving average, and how far they have come.

    `network` holds the weights after the last step, except within `average.in_place()`.
    """

    def __init__(self, network: Network, config: TrainConfig, sampler: BalancedBatchSampler, ranks: Ranks) -> None:
        self.network, self.config, self.sampler, self.ranks = network, config, sampler, ranks
        self.weights = loss_weights(config)
        self.parameters = trained(network)
        self.optimiser = make_optimiser(self.parameters, config)
        self.average = MovingAverage(list(self.parameters.values()), config.ema)
        self.best = [value.clone() for value in self.average.values]  # averages of the epoch with the lowest loss
        self.n_steps = len(sampler) * config.epochs
        self.step = 0
        self.sums = torch.zeros(4, 3, dtype=torch.float64, device=ranks.device)  # since the last look
        self.epoch_sums = torch.zeros_like(self.sums)  # before that, of all processes
        self.history: list[dict[str, float | None]] = []
        self.best_loss: float | None = None
        self.seconds = 0.0
        self._module = ranks.wrap(network)

    def advance(self, batch: Batch) -> Tensor:
        """One step; the length of the gradient, which may still be on its way from the device."""
        self._module.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.n_steps, self.config)
        # Gradients are averaged over processes, so each divides by a share of the labels that all of them have.
        counts = self.ranks.sum(label_counts(batch.labels)) / self.ranks.size
        parts = loss(self._module(batch.graph, forces=self.config.forces), batch, self.weights, counts=counts)
        self.optimiser.zero_grad()
        parts.total.backward()
        length = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.config.clip)
        self.optimiser.step()
        self.step += 1
        self.average.update(self.step)
        self.sums += sums_of(parts)
        self.sampler.advance()
        return length

    def look(self) -> Errors:
        """The errors since the last look, over all processes; they are added to those of the epoch."""
        sums = self.ranks.sum(self.sums)
        self.epoch_sums += sums
        errors = errors_of(sums, self.weights)
        self.sums = torch.zeros_like(sums)
        return errors

    def tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, and the best weights, by name."""
        found: dict[str, Tensor] = {}
        for (name, parameter), average, best in zip(
            self.parameters.items(), self.average.values, self.best, strict=True
        ):
            found |= {f"weights/{name}": parameter, f"average/{name}": average, f"best/{name}": best}
            found |= {f"{key}/{name}": value for key, value in self.optimiser.state[parameter].items()}
        return found

    def position(self, files: dict[str, int]) -> Position:
        """Where the course is, right after a look."""
        return Position(
            step=self.step,
            sampler=self.sampler.state_dict(),
            sums=self.epoch_sums.tolist(),
            best=self.best_loss,
            history=self.history,
            files=files,
            seconds=self.seconds,
        )

    def restore(self, position: Position, tensors: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        copy_into(self.tensors(), tensors)
        self.sampler.load_state_dict(position.sampler)
        self.step, self.best_loss, self.history = position.step, position.best, position.history
        self.epoch_sums.copy_(torch.tensor(position.sums, dtype=torch.float64))
        self.seconds = position.seconds

    def finish_epoch(self, validation: Errors | None) -> bool:
        """Close the epoch with a row of errors; whether the averages are the best so far, and so are kept."""
        training = errors_of(self.epoch_sums, self.weights)
        self.epoch_sums.zero_()
        is_best = validation is None or self.best_loss is None or validation.loss < self.best_loss
        if is_best:
            self.best = [value.clone() for value in self.average.values]
            self.best_loss = None if validation is None else validation.loss
        row: dict[str, float | None] = {"epoch": self.sampler.epoch + 1, "step": self.step}
        row |= {f"train_{name}": value for name, value in training.to_dict().items()}
        if validation is not None:
            row |= {f"validation_{name}": value for name, value in validation.to_dict().items()}
        self.history.append(row | {"seconds": round(self.seconds, 3)})
        self.sampler.set_epoch(self.sampler.epoch + 1)
        return is_best

    def take_best(self) -> None:
        """Make the best averages the weights."""
        with torch.no_grad():
            for parameter, best in zip(self.parameters.values(), self.best, strict=True):
                parameter.copy_(best)


@dataclass(frozen=True, slots=True)
class Saving:
    """Where the state of a run goes, how often, and what makes it this run."""

    folder: Path
    name: str  # of the model
    every: float  # s
    run: Mapping[str, Any]
    resumed: Position | None  # what the run goes on from


def follow(
    course: Course, training: GraphDataset, validation: GraphDataset | None, saving: Saving, meter: Meter
) -> None:
    """Train from where the course is to the last epoch; afterwards the network has the best weights."""
    files = saving.resumed.files if saving.resumed else {}
    logs = Logs(saving.folder, files, course.step) if course.ranks.is_main else None
    try:
        while course.sampler.epoch < course.config.epochs:
            _run_epoch(course, training, validation, saving, logs, meter)
    finally:
        if logs is not None:
            logs.close()
    course.take_best()


def _run_epoch(
    course: Course,
    training: GraphDataset,
    validation: GraphDataset | None,
    saving: Saving,
    logs: Logs | None,
    meter: Meter,
) -> None:
    """The rest of the present epoch, its validation, and the state after it."""
    epoch, n_batches = course.sampler.epoch, len(course.sampler)
    started = saved = time.monotonic()
    before, looked, n_seen = course.seconds, started, 0
    for batch in prefetch(training, course.sampler, device=course.ranks.device):
        length = course.advance(batch)
        n_seen += batch.graph.n_systems * course.ranks.size
        done = course.sampler.done
        if course.step % LOG_STEPS and done < n_batches:
            continue
        errors = course.look()
        now = time.monotonic()
        course.seconds = before + now - started
        _check(errors, length, course, saving)
        if logs is not None:
            rate = n_seen / max(now - looked, 1e-9)
            logs.step(course.step, _step_row(course, errors, float(length), rate))
            meter.update(course.step, f"epoch {epoch + 1}/{course.config.epochs}  {describe(errors)}")
            if now - saved > saving.every and done < n_batches:
                save_state(saving.folder / STATE, course.position(logs.marks()), course.tensors(), saving.run)
                saved = now
        looked, n_seen = now, 0
    with course.average.in_place():
        found = None if validation is None else evaluate(course.network, validation, course.config, course.ranks)
        if course.finish_epoch(found) and logs is not None:
            save_model(course.network, saving.folder / MODEL, saving.name)
    if logs is not None:
        row = course.history[-1]
        logs.epoch(course.step, {name: math.nan if value is None else value for name, value in row.items()})
        save_state(saving.folder / STATE, course.position(logs.marks()), course.tensors(), saving.run)
        if found is not None:
            _log.info("epoch %d/%d: validation %s", epoch + 1, course.config.epochs, describe(found))


def save_model(network: Network, path: Path, name: str) -> None:
    """The present weights as a checkpoint; its two files appear when both are written."""
    with tempfile.TemporaryDirectory(prefix=".fastchgnet-", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        save_checkpoint(network.checkpoint(name), unfinished)
        for file in (unfinished, unfinished.with_suffix(".json")):
            os.replace(file, path.with_suffix(file.suffix))


def _check(errors: Errors, length: Tensor, course: Course, saving: Saving) -> None:
    if math.isfinite(errors.loss) and length.isfinite():
        return
    raise TrainingError(
        f"the loss or its gradient became infinite or NaN by step {course.step} (loss {errors.loss:g}, gradient "
        f"{float(length):g}); {saving.folder / STATE} is of before. Lower the learning rate "
        f"({course.config.highest_rate:g}), or look for labels that cannot be right"
    )


def _step_row(course: Course, errors: Errors, length: float, rate: float) -> dict[str, float]:
    values = (errors.loss, errors.energy, errors.forces, errors.stress, errors.magmoms)
    return {
        "epoch": course.sampler.epoch + 1,
        "learning_rate": course.optimiser.param_groups[0]["lr"],
        **dict(zip(NAMES, values, strict=True)),
        "gradient": length,
        "structures_per_second": rate,
    }


def describe(errors: Errors) -> str:
    """The errors in a few words, in units that have no leading zeros."""
    parts = [f"loss {errors.loss:.4f}"]
    for name, value, factor, unit in (
        ("E", errors.energy, 1e3, "meV/atom"),
        ("F", errors.forces, 1e3, "meV/Å"),
        ("S", errors.stress, 1.0, "GPa"),
        ("M", errors.magmoms, 1e3, "mμB"),
    ):
        if math.isfinite(value):
            parts.append(f"{name} {factor * value:.{2 if factor == 1 else 1}f} {unit}")
    return "  ".join(parts)
