"""Calculators whose steps are recorded, and a walk along which each step is compared with a fresh calculator."""

import numpy as np
from ase import Atoms

from ase_fastchgnet import FastCHGNet

RESULTS = ("forces", "energy", "energies", "stress", "magmoms")  # forces first: all comes with them


class Steps:
    """How often a step was recorded and played, and bonds were chosen for it."""

    def __init__(self) -> None:
        self.played = 0
        self.chosen = 0
        self.recorded = 0


def calc(**options: object) -> FastCHGNet:
    return FastCHGNet(device="cpu", dtype="float64", **options)


def assert_as_if_alone(atoms: Atoms) -> None:
    """Everything is what a calculator without a past says; sums in another order differ by rounding."""
    fresh = atoms.copy()
    fresh.calc = calc(on_isolated_atoms="ignore")
    for name in RESULTS:
        if name == "stress" and not atoms.pbc.all():
            continue
        ours, theirs = (np.asarray(some.calc.get_property(name, some)) for some in (atoms, fresh))
        assert np.abs(ours - theirs).max() <= 1e-12 * max(np.abs(theirs).max(), 1.0), name


def walk(atoms: Atoms, n_steps: int, seed: int = 0, scale: float = 0.02) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(n_steps):
        atoms.positions += rng.normal(scale=scale, size=(len(atoms), 3))
        atoms.get_forces()
        assert_as_if_alone(atoms)
