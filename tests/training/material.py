"""Small labelled structures: what model 0.2.0 says of distorted crystals, for 0.3.0 to learn."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_fastchgnet import evaluate


def crystals(count: int, seed: int = 0) -> list[Atoms]:
    """Distorted cells of two to eight atoms, each with its own."""
    rng = np.random.default_rng(seed)
    kinds = [
        bulk("NaCl", "rocksalt", a=5.6),
        bulk("Si", "diamond", a=5.5),
        bulk("Fe", "bcc", a=2.9, cubic=True),
        bulk("MgO", "rocksalt", a=4.3),
    ]
    found = []
    for number in range(count):
        atoms = kinds[number % len(kinds)].copy()
        atoms.set_cell(atoms.cell.array * rng.uniform(0.97, 1.05), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        found.append(atoms)
    return found


def write_labelled(path: Path, count: int, seed: int = 0) -> list[Atoms]:
    """Structures with labels in a file; the same in memory."""
    structures = crystals(count, seed)
    for atoms, prediction in zip(structures, evaluate(structures, "0.2.0"), strict=True):
        results = prediction.results()
        kept = {name: results[name] for name in ("energy", "forces", "stress", "magmoms")}
        atoms.calc = SinglePointCalculator(atoms, **kept)
    write(path, structures)
    return structures
