"""train and finetune: from labelled structures to a checkpoint, with everything that tells how it went."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms

from ase_fastchgnet.model.checkpoint import Checkpoint, load_checkpoint
from ase_fastchgnet.model.network import Network
from ase_fastchgnet.model.parameters import DIRECT_READOUT
from ase_fastchgnet.progress import progress as progress_of
from ase_fastchgnet.training.balance import BalancedBatchSampler
from ase_fastchgnet.training.config import FINETUNE, TrainConfig
from ase_fastchgnet.training.cost import TYPICAL
from ase_fastchgnet.training.data import DTYPES, VALIDATION, Material, Source, gather_material
from ase_fastchgnet.training.dataset import GraphDataset
from ase_fastchgnet.training.distributed import Ranks, ranks
from ase_fastchgnet.training.errors import Errors, Parity, compare
from ase_fastchgnet.training.folder import RunFolder
from ase_fastchgnet.training.initial import untrained, with_direct_readout
from ase_fastchgnet.training.loop import STATE, Course, Saving, follow
from ase_fastchgnet.training.optimiser import freeze_layers
from ase_fastchgnet.training.report import plot_curves, plot_parity
from ase_fastchgnet.training.state import Position, load_state

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)

NO_BETTER = (
    "by validation the model is no better than the one that training began with: there may be too few data (in "
    "training, or in validation to tell), the learning rate too high, or the epochs too few"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Training:
    """A run that has come to its end."""

    folder: Path  # config.json, steps.csv, epochs.csv, tensorboard/, model.safetensors and more
    model: Path  # FastCHGNet(model=…) loads it
    history: list[dict[str, float | None]]  # errors of training and validation, a row for each epoch
    before: dict[str, tuple[Errors, Parity]]  # of validation and each test, by name, before the first step
    after: dict[str, tuple[Errors, Parity]]  # and of the model

    def __str__(self) -> str:
        """A table of mean absolute errors before and after."""
        rows: list[tuple[str, ...]] = [("mean absolute errors", "", "energy", "force", "stress", "moment")]
        rows.append(("", "", "meV/atom", "meV/Å", "GPa", "μB"))
        for name, (errors, _) in self.after.items():
            rows += [(name, "before", *_cells(self.before[name][0])), ("", "after", *_cells(errors))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for left, when, *cells in rows:
            numbers = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths[2:], strict=True))
            lines.append(f"{left:{widths[0]}}  {when:{widths[1]}}  {numbers}".rstrip())
        return "\n".join(lines)

    def plot_curves(self) -> "tuple[Figure, Any]":
        """Losses and errors of training and validation against epochs."""
        return plot_curves(self.history)

    def plot_parity(self, name: str = VALIDATION) -> "tuple[Figure, Any]":
        """Predictions against labels of `name`, "validation" or a test, before and after."""
        return plot_parity(self.before[name], self.after[name])


def train(
    data: Source,
    out: str | os.PathLike[str],
    config: TrainConfig | None = None,
    *,
    model: str | os.PathLike[str] | Checkpoint | None = None,
    validation: Source | float = 0.1,
    test: Mapping[str, Source] | None = None,
    replay: Sequence[Atoms] | None = None,
    check: bool = True,
    device: str | None = None,
    save_every: float = 60.0,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Training:
    """Train CHGNet on labelled structures.

    data        a file of labelled structures (extended XYZ, an ASE database, chgnet's JSON), several, or a list of
                Labelled.  Energies in eV, forces in eV/Å, stresses in eV/Å³ (tension positive), moments in μ_B;
                whatever is missing does not count
    out         a folder: settings, graphs, logs, state, pictures and model.safetensors
    config      settings; None: TrainConfig()
    model       whose weights to start from: a released name, a path, a Checkpoint; None: random ones
    validation  data that the best epoch is chosen by, or the share of `data` that is put aside for it
    test        more data, by name, of which errors are taken before and after and nothing else
    replay      structures that the model is to keep its opinion of; see `finetune`
    check       look for wrong units and signs, outliers and duplicates, say what was found, and stop if that is wrong
    device      "cpu", "cuda" or "cuda:N"; None: CUDA if there is one
    save_every  s, from one state to the next within an epoch
    resume      go on from the state in `out`, if there is one: on a CPU the weights are to the last bit what they would
                be without the interruption
    overwrite   replace an earlier run in `out`
    progress    draw a bar; None: on a terminal

    Under torchrun every process calls this with the same arguments: batches are dealt to them by what structures cost,
    and gradients are those of a single process.  ValueError for what is wrong with the data or the settings,
    TrainingError if the loss becomes infinite.
    """
    config = config or TrainConfig()
    start = _start(model, config)
    freeze_layers(Network(start), config.freeze)  # a name that is wrong is said before any work
    folder = RunFolder(Path(out))
    with ranks(device) as team:
        share = _share(config, team)

        def gather() -> Material:
            folder.prepare(resume=resume, overwrite=overwrite)
            look = check and not (folder.path / STATE).exists()  # of a continuation there is nothing new to say
            return gather_material(
                data, start, config, team.device, validation=validation, test=test, replay=replay, check=look
            )

        material = team.made_once(gather)
        sets = _datasets(material, folder, team)
        network = Network(material.start, dtype=DTYPES[config.dtype]).to(team.device)
        unread = [DIRECT_READOUT] if network.config.direct_readout and config.forces == "conservative" else []
        freeze_layers(network, [*config.freeze, *unread])
        tests = {name: dataset for name, dataset in sets.items() if name != "training"}
        before = _before(network, tests, config, team, folder)
        costs = TYPICAL.of_structures(sets["training"].sizes)
        sampler = BalancedBatchSampler(
            costs, batch_size=share, n_ranks=team.size, rank=team.rank, deal=config.deal, seed=config.seed
        )
        course = Course(network, config, sampler, team)
        run = _identity(start, config, material)
        resumed = _resume(course, folder.path / STATE, run)
        team.wait()  # nobody writes before all have read
        if team.is_main:
            folder.describe(config, run)
            _log.info("%s", _summary(material, course))
        saving = Saving(folder.path, folder.path.absolute().name, save_every, run, resumed)
        with progress_of("train", course.n_steps, progress if team.is_main else False) as meter:
            follow(course, sets["training"], sets.get(VALIDATION), saving, meter)
        after = {name: compare(network, dataset, config, team) for name, dataset in tests.items()}
    found = Training(folder=folder.path, model=folder.model, history=course.history, before=before, after=after)
    if team.is_main:
        folder.finish(found.history, before, after)
        if VALIDATION in after and after[VALIDATION][0].loss >= before[VALIDATION][0].loss:
            _log.warning("%s", NO_BETTER)
    return found


def finetune(
    data: Source,
    out: str | os.PathLike[str],
    config: TrainConfig = FINETUNE,
    *,
    model: str | os.PathLike[str] | Checkpoint = "0.3.0",
    **options: Any,
) -> Training:
    """Train a model that has been trained before, on new data; the options are those of `train`.

    The energies of the elements are fitted to the data first, because other settings of DFT shift them, unless
    `config.reference_energies` is "keep".  Against forgetting there are `config.freeze`, layers that stay as they are,
    and `replay`: structures of the kinds that the model should stay right for.  They are moved and strained a little,
    labelled by `model` itself, and make up `config.replay_share` of what is trained on.
    """
    return train(data, out, config, model=model, **options)


def _start(model: str | os.PathLike[str] | Checkpoint | None, config: TrainConfig) -> Checkpoint:
    if model is None:
        model = untrained(load_checkpoint("0.3.0").config, config.seed)
    start = model if isinstance(model, Checkpoint) else load_checkpoint(model)
    return with_direct_readout(start, config.seed) if config.forces == "direct" else start


def _share(config: TrainConfig, team: Ranks) -> int:
    share, left = divmod(config.batch_size, team.size)
    if left:
        raise ValueError(
            f"batch_size={config.batch_size} cannot be shared out evenly to {team.size} processes; choose a multiple"
        )
    return share


def _datasets(material: Material, folder: RunFolder, team: Ranks) -> dict[str, GraphDataset]:
    """The graphs of each part, built by the main process and read by the others."""
    if not team.is_main:
        team.wait()
    sets = {
        name: GraphDataset.build(labelled, material.cutoffs, folder.graphs(name))
        for name, labelled in material.parts.items()
    }
    if team.is_main:
        team.wait()
    return sets


def _before(
    network: Network, tests: Mapping[str, GraphDataset], config: TrainConfig, team: Ranks, folder: RunFolder
) -> dict[str, tuple[Errors, Parity]]:
    """The errors before the first step: of the run's first start, if this is a continuation."""
    found: dict[str, tuple[Errors, Parity]] = {}
    for name, dataset in tests.items():
        kept = folder.before(name)
        found[name] = kept or compare(network, dataset, config, team)
        team.wait()  # nobody writes before all have looked
        if kept is None and team.is_main:
            folder.keep_before(name, found[name])
    return found


def _resume(course: Course, state: Path, run: Mapping[str, Any]) -> Position | None:
    """Bring the course to where its saved state is, if there is one; ValueError if that is of another run."""
    if not state.exists():
        return None
    position, tensors = load_state(state, run)
    course.restore(position, tensors)
    return position


def _identity(start: Checkpoint, config: TrainConfig, material: Material) -> dict[str, Any]:
    """What has to be the same for a run to be continued; JSON-ready."""
    return {**config.to_dict(), "model": f"{start.name} {start.sha256}", "data": material.checksums}


def _summary(material: Material, course: Course) -> str:
    parts = ", ".join(f"{name} {len(labelled)}" for name, labelled in material.parts.items())
    count = sum(parameter.numel() for parameter in course.parameters.values())
    rate = course.config.highest_rate
    steps = f"from step {course.step} of {course.n_steps}" if course.step else f"{course.n_steps} steps"
    return f"{parts}; {steps}, {count} weights, learning rate {rate:g}, {course.ranks.device}"


def _cells(errors: Errors) -> list[str]:
    values = (
        (errors.energy, 1e3, ".1f"),
        (errors.forces, 1e3, ".1f"),
        (errors.stress, 1.0, ".3f"),
        (errors.magmoms, 1.0, ".3f"),
    )
    return ["-" if math.isnan(value) else format(factor * value, form) for value, factor, form in values]
