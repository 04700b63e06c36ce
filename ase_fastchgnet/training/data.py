"""What a run learns from and is measured by: read, checked, split, and the same in every process."""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from ase_fastchgnet.graph import Cutoffs
from ase_fastchgnet.model.checkpoint import Checkpoint, load_checkpoint
from ase_fastchgnet.training.checks import check_labels
from ase_fastchgnet.training.config import TrainConfig
from ase_fastchgnet.training.initial import UNTRAINED
from ase_fastchgnet.training.labels import Labelled, read_labelled
from ase_fastchgnet.training.reference_energies import refit
from ase_fastchgnet.training.replay import replayed

_log = logging.getLogger(__name__)

Path = str | os.PathLike[str]
Source = Path | Sequence[Path | Labelled]

DTYPES = {"float32": torch.float32, "float64": torch.float64}
TRAINING, VALIDATION = "training", "validation"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """The start of a run, and labelled structures by what they are for."""

    start: Checkpoint  # with reference energies fitted to the data, if that was asked for
    parts: dict[str, list[Labelled]]  # "training" (replay at its end), "validation" unless there is none, each test
    checksums: dict[str, str]  # of what was given

    @property
    def cutoffs(self) -> Cutoffs:
        return Cutoffs(self.start.config.atom_cutoff, self.start.config.bond_cutoff)


def gather_material(
    data: Source,
    start: Checkpoint,
    config: TrainConfig,
    device: torch.device,
    *,
    validation: Source | float,
    test: Mapping[str, Source] | None,
    replay: Sequence[Atoms] | None,
    check: bool,
) -> Material:
    """Everything is read, looked at, and brought together."""
    names = set(test or {}) & {TRAINING, VALIDATION}
    if names:
        raise ValueError(f"test={sorted(names)}: these names are taken; choose others")
    training = read(data)
    if isinstance(validation, float | int):
        training, held_out = split(training, float(validation), config.seed)
    else:
        held_out = read(validation)
    parts = {TRAINING: training, VALIDATION: held_out} | {name: read(source) for name, source in (test or {}).items()}
    parts = {name: labelled for name, labelled in parts.items() if labelled}
    checksums = {name: checksum(labelled) for name, labelled in parts.items()}
    if check:
        look_at(training + parts.get(VALIDATION, []), start, device)
    if config.reference_energies == "refit" and any(one.energy is not None for one in training):
        fitted = refit(training, start, device=device)
        _log.info("%s", fitted)
        start = fitted.apply(start)
    if replay:
        count = round(len(training) * config.replay_share / (1 - config.replay_share))
        again = replayed(replay, start, count=count, seed=config.seed, device=device)
        _log.info("replay: %d of %d structures, labelled by %s", len(again), len(replay), start.name)
        parts[TRAINING] = training + again
        checksums["replay"] = _digest([*(atoms.positions for atoms in replay), *(atoms.numbers for atoms in replay)])
    return Material(start=start, parts=parts, checksums=checksums)


def read(source: Source) -> list[Labelled]:
    """The labelled structures of a file, several, or a list of them."""
    if isinstance(source, str | os.PathLike):
        source = [source]
    found: list[Labelled] = []
    for item in source:
        found += [item] if isinstance(item, Labelled) else read_labelled(item)
    return found


def split(labelled: list[Labelled], share: float, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    """Two parts, the second with `share` of the structures, chosen at random; both keep their order."""
    if not 0 <= share < 1:
        raise ValueError(f"validation={share}: expected a share from 0 up to, but not, 1, or data")
    count = round(share * len(labelled))
    chosen = set(np.random.default_rng([seed, 1]).permutation(len(labelled))[:count].tolist())
    kept = [one for number, one in enumerate(labelled) if number not in chosen]
    return kept, [one for number, one in enumerate(labelled) if number in chosen]


def look_at(labelled: Sequence[Labelled], start: Checkpoint, device: torch.device) -> None:
    """Say what is found in the data; ValueError if it would teach something wrong."""
    # Random weights know nothing of units and signs.
    known = load_checkpoint("0.3.0") if start.name == UNTRAINED else start
    report = check_labels(labelled, known, device=device)
    if report.errors:
        raise ValueError(f"{report}\nPut this right, or train on it as it is with check=False (--no-check)")
    _log.info("%s", report)


def checksum(labelled: Sequence[Labelled]) -> str:
    """SHA-256 of structures and labels."""
    arrays: list[object] = []
    for one in labelled:
        arrays += [one.atoms.numbers, one.atoms.positions, one.atoms.cell.array, one.atoms.pbc]
        arrays += [one.energy, one.forces, one.stress, one.magmoms]
    return _digest(arrays)


def _digest(arrays: Sequence[object]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
