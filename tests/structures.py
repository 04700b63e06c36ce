"""Structures for all tests: real crystals, and whatever is awkward about cells and boundaries. Deterministic.

`STRUCTURES[name]` is shared: tests that move atoms take a `.copy()`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.io import read

DATA = Path(__file__).parent / "data" / "structures.extxyz"


def crystals() -> dict[str, Atoms]:
    """Real crystals of the Materials Project (tests/data/README.md)."""
    frames: list[Atoms] = read(DATA, index=":")  # type: ignore[assignment]
    return {frame.info["name"]: Atoms(frame) for frame in frames}


def rattled(atoms: Atoms, repeat: tuple[int, int, int], amplitude: float, seed: int) -> Atoms:
    atoms = atoms.repeat(repeat)
    atoms.rattle(amplitude, seed=seed)
    return atoms


def scaled(atoms: Atoms, factor: float) -> Atoms:
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell * factor, scale_atoms=True)
    return atoms


def other_basis(atoms: Atoms, basis: list[list[int]]) -> Atoms:
    """The same crystal, its cell vectors combined by an integer matrix of determinant ±1."""
    atoms = atoms.copy()
    atoms.set_cell(np.array(basis) @ atoms.cell.array, scale_atoms=False)
    return atoms


def scattered(atoms: Atoms, seed: int) -> Atoms:
    """The same crystal, each atom moved by a lattice vector of its own, up to dozens of cells away."""
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).integers(-40, 40, (len(atoms), 3)) @ atoms.cell.array
    return atoms


def slab() -> Atoms:
    """Al(111) with an oxygen atom on it; no cell vector along the surface normal."""
    atoms: Atoms = fcc111("Al", (2, 2, 3), a=4.05)
    atoms += Atoms("O", positions=[atoms.positions[-1] + [0.1, 0.2, 1.8]])
    atoms.cell[2] = 0
    atoms.pbc = (True, True, False)
    atoms.rattle(0.02, seed=11)
    return atoms


def slab_on_its_side() -> Atoms:
    """A slab whose periodic axes are the first and the last; its idle cell vector is short and askew."""
    atoms = rattled(bulk("MgO", "rocksalt", a=4.21, cubic=True), (1, 2, 1), 0.03, seed=12)
    atoms.cell[1] = [3.0, 1.0, 0.5]
    atoms.pbc = (True, False, True)
    return atoms


def wire() -> Atoms:
    """A zigzag carbon chain along a skew direction."""
    axis = np.array([1.0, 2.0, 0.5]) / np.linalg.norm([1.0, 2.0, 0.5])
    return Atoms(
        "C2H2",
        positions=[
            0.0 * axis,
            1.25 * axis + [0.0, 0.1, -0.4],
            0.2 * axis + [0.9, -0.4, 0.0],
            1.3 * axis - [0.8, -0.5, 0],
        ],
        cell=[[0, 0, 0], 2.5 * axis, [0, 0, 0]],
        pbc=(False, True, False),
    )


def disordered() -> Atoms:
    """30 atoms of five elements at random, no two closer than 1.6 Å, in a triclinic cell."""
    rng = np.random.default_rng(13)
    cell = np.array([[9.0, 0.0, 0.0], [2.0, 8.0, 0.0], [-1.5, 1.0, 8.5]])
    atoms = Atoms(cell=cell, pbc=True)
    while len(atoms) < 30:
        atoms += Atoms([rng.choice(["Na", "Cl", "Fe", "O", "Ti"])], positions=[rng.random(3) @ cell])
        if len(atoms) > 1 and atoms.get_distances(-1, list(range(len(atoms) - 1)), mic=True).min() < 1.6:
            del atoms[-1]
    return atoms


def built() -> dict[str, Atoms]:
    """Structures made here, from crystals and by ase.build."""
    real = crystals()
    limno2, si, triclinic = real["LiMnO2"], real["Si"], real["BaFe2P2O8"]
    return {
        "NaCl": bulk("NaCl", "rocksalt", a=5.64),
        "MgO": bulk("MgO", "rocksalt", a=4.21, cubic=True),
        "Cu fcc": bulk("Cu", "fcc", a=3.61),
        "Fe bcc, one atom": bulk("Fe", "bcc", a=2.87),
        "Li bcc, nearest neighbours 2.98 Å": bulk("Li", "bcc", a=3.44),
        "K bcc, no bond below 3 Å": bulk("K", "bcc", a=5.33),
        "Mg hcp": bulk("Mg", "hcp", a=3.21, c=5.21),
        "W bcc, cubic cell": bulk("W", "bcc", a=3.16, cubic=True),
        "Au fcc": bulk("Au", "fcc", a=4.08),
        "graphene with pbc in the plane only": Atoms(
            "C2", positions=[[0, 0, 0], [0, 1.42, 0]], cell=[[2.46, 0, 0], [1.23, 2.1304, 0], [0, 0, 0]], pbc=(1, 1, 0)
        ),
        "LiMnO2 rattled": rattled(limno2, (2, 1, 1), 0.05, seed=1),
        "Si rattled": rattled(si, (3, 3, 3), 0.1, seed=2),
        "MgO hot": rattled(bulk("MgO", "rocksalt", a=4.21, cubic=True), (2, 2, 2), 0.15, seed=3),
        "LiMnO2 compressed": scaled(rattled(limno2, (1, 1, 1), 0.02, seed=4), 0.8),
        "LiMnO2 stretched": scaled(limno2, 1.25),
        "Cu gas, atoms 7 Å apart": bulk("Cu", "sc", a=7.0),
        "Si left-handed": other_basis(rattled(si, (2, 1, 1), 0.05, seed=5), [[0, 1, 0], [1, 0, 0], [0, 0, 1]]),
        "triclinic left-handed": other_basis(triclinic, [[-1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        "LiMnO2 skewed": other_basis(rattled(limno2, (1, 1, 1), 0.03, seed=6), [[1, 0, 0], [3, 1, 0], [-2, 4, 1]]),
        "LiMnO2 scattered": scattered(rattled(limno2, (1, 1, 1), 0.03, seed=7), seed=8),
        "triclinic scattered": scattered(triclinic, seed=9),
        "disordered": disordered(),
        "slab without a third vector": slab(),
        "slab on its side": slab_on_its_side(),
        "wire": wire(),
        "water, no cell": molecule("H2O"),
        "benzene in a box": molecule("C6H6", vacuum=5.0),
        "ethanol in a periodic box": molecule("CH3CH2OH", vacuum=3.1, pbc=True),
        "one atom, no cell": Atoms("H"),
        "one atom in a large cell": Atoms("Li", cell=[20, 20, 20], pbc=True),
        "dimer in vacuum": Atoms("N2", positions=[[0, 0, 0], [0, 0, 1.1]], cell=[15, 15, 15], pbc=True),
        "dimer too far to bond": Atoms("Ar2", positions=[[1, 1, 1], [1, 1, 9]]),
    }


STRUCTURES: dict[str, Atoms] = crystals() | built()


def named(keep: Callable[[Atoms], bool]) -> list[str]:
    """The names of the structures that satisfy a condition, for `pytest.mark.parametrize`."""
    return [name for name, atoms in STRUCTURES.items() if keep(atoms)]
