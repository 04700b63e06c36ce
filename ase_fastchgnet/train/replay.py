"""Replay: what a model knows before it is fine-tuned, as labelled structures that are trained on beside the new ones.

A model that only sees new data forgets the rest.  Its old data are seldom at hand, so structures of old kinds are
labelled by the model itself, before the first step: it is held to what it said.
"""

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms

from ase_fastchgnet.graph import Cutoffs, build_batch
from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.model.engine import Engine
from ase_fastchgnet.train.labels import Labelled

RATTLE = 0.08  # Å, standard deviation of each coordinate: forces up to a few eV/Å
STRAIN = 0.03  # largest component of the strain
BATCH = 16


def replayed(
    structures: Sequence[Atoms], checkpoint: Checkpoint, *, count: int, seed: int, device: torch.device
) -> list[Labelled]:
    """`count` of `structures` (all, if they are fewer) chosen at random, moved and strained a little, and labelled."""
    rng = np.random.default_rng([seed, len(structures)])
    chosen = sorted(rng.permutation(len(structures))[:count].tolist())
    moved = [_moved(structures[number], rng) for number in chosen]
    engine = Engine(checkpoint, dtype=torch.float32, device=str(device))
    cutoffs = Cutoffs(checkpoint.config.atom_cutoff, checkpoint.config.bond_cutoff)
    found: list[Labelled] = []
    for start in range(0, len(moved), BATCH):
        found += _labelled(moved[start : start + BATCH], chosen[start : start + BATCH], engine, cutoffs, device)
    return found


def _moved(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    strain = rng.uniform(-STRAIN, STRAIN, (3, 3))
    deformed = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc)
    deformed.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
    deformed.positions += rng.normal(0, RATTLE, deformed.positions.shape)
    return deformed


def _labelled(
    structures: list[Atoms], numbers: list[int], engine: Engine, cutoffs: Cutoffs, device: torch.device
) -> list[Labelled]:
    graph = build_batch(structures, cutoffs, device=device)
    output = engine.evaluate(graph)
    assert output.forces is not None
    assert output.virial is not None
    energies = torch.zeros(len(structures), dtype=torch.float64, device=device)
    energies.index_add_(0, graph.system_of_atom, output.atom_energies)
    volume = graph.volume()
    sizes = graph.atom_ptr.diff().tolist()
    return [
        Labelled(
            atoms=atoms,
            energy=energy,
            forces=forces.cpu().numpy(),
            stress=(virial / space).cpu().numpy() if atoms.pbc.all() else None,
            magmoms=magmoms.cpu().numpy(),
            source=f"replay@{number}",
        )
        for atoms, number, energy, forces, virial, space, magmoms in zip(
            structures,
            numbers,
            energies.tolist(),
            output.forces.split(sizes),
            output.virial,
            volume,
            output.magmoms.split(sizes),
            strict=True,
        )
    ]
