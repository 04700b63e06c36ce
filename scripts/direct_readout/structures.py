"""Crystals off their equilibrium, as a student of forces should see them: rattled, strained, compressed, hot."""

import io
import lzma
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.geometry import cellpar_to_cell
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from ase_fastchgnet import FastCHGNet

SPLITS = ("train", "val", "test")
KINDS = ("rattled", "strained", "compressed", "relaxed", "hot")
SHARES = (0.33, 0.27, 0.20, 0.15, 0.05)  # of the training structures
TEST_SHARES = (1 / 3, 1 / 3, 0.0, 0.0, 1 / 3)
MD_STEPS, MD_TIMESTEP = 20, 2.0  # fs


class Crystals(Sequence[Atoms]):
    """The Materials Project crystals of one split, made when asked for; splits are by reduced formula."""

    def __init__(self, path: Path, split: str) -> None:
        data = np.load(io.BytesIO(lzma.decompress(path.read_bytes())))
        self._cells = _integers(data["cell_planes"], 6) / 1e6
        self._fractional = _integers(data["frac_planes"], 3) / 1e6
        self._numbers, self._ids = data["Z"], data["ids"]
        self._ptr = np.concatenate([[0], np.cumsum(data["natoms"].astype(int))])
        self._chosen = np.flatnonzero(data["split"] == SPLITS.index(split))

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, number: Any) -> Any:
        which = self._chosen[number]
        atoms = slice(self._ptr[which], self._ptr[which + 1])
        return Atoms(
            numbers=self._numbers[atoms],
            scaled_positions=self._fractional[atoms],
            cell=cellpar_to_cell(self._cells[which]),
            pbc=True,
            info={"id": f"mp-{self._ids[which]}"},
        )


def _integers(planes: np.ndarray, width: int) -> np.ndarray:
    """32-bit integers whose bytes are stored plane by plane, which compresses better; planes of zeros are left out."""
    whole = np.zeros((4, planes.shape[1]), np.uint8)
    whole[: len(planes)] = planes
    return np.ascontiguousarray(whole.T).view("<i4").reshape(-1, width)


def perturbed(crystals: Sequence[Atoms], shares: tuple[float, ...], rng: np.random.Generator) -> Iterator[Atoms]:
    """Each crystal once, off its equilibrium in one of the five ways; `info["kind"]` says which."""
    for atoms in crystals:
        kind = KINDS[rng.choice(len(KINDS), p=shares)]
        if kind == "hot" and len(atoms) == 1:
            kind = "strained"  # an atom alone has no motion but that of the whole
        moved = _hot(atoms, rng) if kind == "hot" else _displaced(atoms, kind, rng)
        moved.info["kind"] = kind
        yield moved


def _displaced(atoms: Atoms, kind: str, rng: np.random.Generator) -> Atoms:
    rattle, strain, scale = {
        "rattled": (rng.uniform(0.01, 0.08), 0.0, 1.0),
        "strained": (rng.uniform(0.0, 0.04), 0.02, 1.0),
        "compressed": (rng.uniform(0.02, 0.06), 0.01, rng.uniform(0.94, 1.01)),
        "relaxed": (rng.uniform(0.0, 0.02), 0.003, 1.0),
    }[kind]
    moved: Atoms = atoms.copy()
    tensor = rng.normal(0, strain, (3, 3))
    moved.set_cell(moved.cell.array @ (np.eye(3) + (tensor + tensor.T) / 2) * scale, scale_atoms=True)
    moved.positions += rng.normal(0, rattle, moved.positions.shape)
    return moved


def _hot(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """After 40 fs of molecular dynamics that started at the crystal with 600 to 2000 K, half of which is kinetic."""
    moved: Atoms = atoms.copy()
    moved.calc = FastCHGNet(on_isolated_atoms="ignore")
    thermalize_momenta(moved, temperature_K=rng.uniform(600, 2000), rng=rng)
    Stationary(moved)
    VelocityVerlet(moved, timestep=MD_TIMESTEP * units.fs).run(MD_STEPS)
    moved.calc = None
    return moved
