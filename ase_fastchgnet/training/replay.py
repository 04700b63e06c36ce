"""Replay: what a model knows before it is fine-tuned, as labelled structures that are trained on beside the new ones.

A model that only sees new data forgets the rest.  Its old data are seldom at hand, so structures of old kinds are
labelled by the model itself, before the first step: it is held to what it said.
"""

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms

from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.training.labels import Labelled
from ase_fastchgnet.training.predict import predict

RATTLE = 0.08  # Å, standard deviation of each coordinate: forces up to a few eV/Å
STRAIN = 0.03  # largest component of the strain


def replayed(
    structures: Sequence[Atoms], checkpoint: Checkpoint, *, count: int, seed: int, device: torch.device
) -> list[Labelled]:
    """`count` of `structures` (all, if they are fewer) chosen at random, moved and strained a little, and labelled."""
    rng = np.random.default_rng([seed, len(structures)])
    chosen = sorted(rng.permutation(len(structures))[:count].tolist())
    return predict([_moved(structures[number], rng) for number in chosen], checkpoint, device=device)


def _moved(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    strain = rng.uniform(-STRAIN, STRAIN, (3, 3))
    moved = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc)
    moved.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
    moved.positions += rng.normal(0, RATTLE, moved.positions.shape)
    return moved
