"""What any interatomic potential must obey: derivatives, symmetries, conservation. No second code."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.io import read
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from scipy.spatial.transform import Rotation

from ase_fastchgnet import FastCHGNet, evaluate
from ase_fastchgnet.evaluation.prediction import Prediction
from tests.model.backends import MODELS
from tests.structures import STRUCTURES, other_basis, rattled

LIMNO2 = Path(__file__).parents[2] / "examples" / "structures" / "LiMnO2.cif"
CRYSTALS = ["LiMnO2 rattled", "MgO hot", "disordered", "ethanol in a periodic box"]
# Symmetry transforms round coordinates at 1e-16 of some 10 Å; second derivatives of up to 1e3 eV/Å² and some 1e3
# roundings in the network make that 1e-11 eV/Å at worst.
ROUNDING = 1e-10


def nearly_straight() -> Atoms:
    """Rock salt with one atom 1 mÅ off its site: angles of 180° become 0.5 or 1 mrad less.

    CHGNet rounds the cone that θ has there over 1.4 mrad, so that the energy bends within 3 mÅ.
    """
    atoms = bulk("MgO", "rocksalt", a=4.21)
    atoms.positions[1] += [6e-4, -5e-4, 6e-4]
    return atoms


# Three-body terms matter in all of these: angles by the dozen on every atom, straight ones too, and hydrogen.
MANY_ANGLES = {
    "LiMnO2": rattled(STRUCTURES["LiMnO2"], (1, 1, 1), 0.05, seed=0),
    "MgO": rattled(bulk("MgO", "rocksalt", a=4.21), (1, 1, 1), 0.08, seed=1),
    "MgO, nearly straight": nearly_straight(),
    "diamond": rattled(bulk("C", "diamond", a=3.57), (1, 1, 1), 0.05, seed=2),
    "LiH": rattled(bulk("LiH", "rocksalt", a=4.0), (1, 1, 1), 0.08, seed=3),
    "CH3NH3SnI3": STRUCTURES["CH3NH3SnI3"],
    "water": rattled(molecule("H2O"), (1, 1, 1), 0.05, seed=4),
}
# Å, or 1 for a strain. Trained energies are rough: at 1e-4 Å a fifth derivative of 1e12 eV/Å⁵ would still be seen.
STEP = 2e-5
AtomsAlong = Callable[[float], Atoms]


def predict(*structures: Atoms, dtype: str = "float64", model: str = "0.3.0") -> list[Prediction]:
    return evaluate(structures, model, dtype=dtype, on_isolated_atoms="ignore")


def full_stress(prediction: Prediction) -> np.ndarray:
    assert prediction.stress is not None
    xx, yy, zz, yz, xz, xy = prediction.stress
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def slopes(paths: list[AtomsAlong], h: float, model: str) -> tuple[np.ndarray, np.ndarray]:
    """dE/dt at t = 0 along each path by central differences of fourth order, and how far to trust them, both (paths,).

    The error of the step h is 1/15 of what halving the step from 2h has changed. The energy of N atoms is rounded by
    N · 3e-14 eV at most (twice what engine and reference differ by), which 1.5/h multiplies.
    """
    t = h * np.array([-4, -2, -1, 1, 2, 4])
    structures = [path(x) for path in paths for x in t]
    found = evaluate(structures, model, dtype="float64", properties=["energy"], on_isolated_atoms="ignore")
    e = np.array([p.energy for p in found]).reshape(len(paths), 6)
    fine = (e[:, 1] - 8 * e[:, 2] + 8 * e[:, 3] - e[:, 4]) / (12 * h)
    coarse = (e[:, 0] - 8 * e[:, 1] + 8 * e[:, 4] - e[:, 5]) / (24 * h)
    return fine, np.abs(fine - coarse) + 4.5e-14 * len(structures[0]) / h


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", MANY_ANGLES)
def test_forces_are_minus_the_slope_of_the_energy(name: str, model: str) -> None:
    """Along each coordinate of one atom, and along random directions of all atoms at once."""
    atoms, random = MANY_ANGLES[name], np.random.default_rng(0)
    directions = [np.zeros_like(atoms.positions) for _ in range(3)]
    for axis, direction in enumerate(directions):
        direction[len(atoms) // 2, axis] = 1
    directions += [random.normal(size=atoms.positions.shape) for _ in range(3)]

    def displaced(direction: np.ndarray) -> AtomsAlong:
        return lambda t: Atoms(atoms.numbers, atoms.positions + t * direction, cell=atoms.cell, pbc=atoms.pbc)

    forces = predict(atoms, model=model)[0].forces
    numerical, doubt = slopes([displaced(d) for d in directions], STEP, model)
    expected = np.array([-(forces * d).sum() for d in directions])
    assert doubt.max() <= 1e-6 * max(1.0, np.abs(expected).max())
    assert np.abs(expected).max() > 1e-3
    assert (np.abs(numerical - expected) <= doubt).all()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", [name for name in MANY_ANGLES if MANY_ANGLES[name].pbc.all()])
def test_stress_is_the_slope_of_the_energy_under_strain(name: str, model: str) -> None:
    """Along each component of the strain; shear xy is the strain [[0, ½], [½, 0]]."""
    atoms = MANY_ANGLES[name]

    def strained(i: int, j: int) -> AtomsAlong:
        direction = np.zeros((3, 3))
        direction[i, j] = direction[j, i] = 1.0 if i == j else 0.5

        def at(t: float) -> Atoms:
            f = np.eye(3) + t * direction
            return Atoms(atoms.numbers, atoms.positions @ f, cell=atoms.cell @ f, pbc=atoms.pbc)

        return at

    voigt = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
    virial = predict(atoms, model=model)[0].stress * atoms.get_volume()
    numerical, doubt = slopes([strained(i, j) for i, j in voigt], STEP, model)
    assert doubt.max() <= 1e-6 * max(1.0, np.abs(virial).max())
    assert np.abs(virial).max() > 1e-2
    assert (np.abs(numerical - virial) <= doubt).all()


@pytest.mark.parametrize("name", CRYSTALS)
def test_a_rotation_turns_forces_and_stress_and_leaves_the_energy(name: str) -> None:
    atoms, turned = STRUCTURES[name].copy(), STRUCTURES[name].copy()
    matrix = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    turned.set_cell(atoms.cell.array @ matrix.T)
    turned.positions = atoms.positions @ matrix.T
    before, after = predict(atoms, turned)
    scale = max(1.0, np.abs(before.forces).max())
    assert after.energy == pytest.approx(before.energy, abs=ROUNDING * len(atoms))
    assert np.abs(after.forces - before.forces @ matrix.T).max() <= ROUNDING * scale
    assert np.abs(full_stress(after) - matrix @ full_stress(before) @ matrix.T).max() <= ROUNDING * scale
    assert np.abs(after.magmoms - before.magmoms).max() <= ROUNDING


@pytest.mark.parametrize("name", CRYSTALS)
def test_the_origin_and_the_choice_of_periodic_images_do_not_matter(name: str) -> None:
    atoms, moved = STRUCTURES[name].copy(), STRUCTURES[name].copy()
    moved.positions += [0.37, -2.1, 1.9]
    moved.positions[0] += atoms.cell.array[0] - 2 * atoms.cell.array[2]
    before, after = predict(atoms, moved)
    scale = max(1.0, np.abs(before.forces).max())
    assert after.energy == pytest.approx(before.energy, abs=ROUNDING * len(atoms))
    assert np.abs(after.forces - before.forces).max() <= ROUNDING * scale
    assert np.abs(after.stress - before.stress).max() <= ROUNDING * scale


@pytest.mark.parametrize("name", CRYSTALS)
def test_the_order_of_atoms_only_reorders_the_results(name: str) -> None:
    atoms = STRUCTURES[name].copy()
    order = np.random.default_rng(3).permutation(len(atoms))
    before, after = predict(atoms, atoms[order])
    scale = max(1.0, np.abs(before.forces).max())
    assert after.energy == pytest.approx(before.energy, abs=ROUNDING * len(atoms))
    assert np.abs(after.forces - before.forces[order]).max() <= ROUNDING * scale
    assert np.abs(after.energies - before.energies[order]).max() <= ROUNDING


@pytest.mark.parametrize("name", ["LiMnO2 rattled", "Fe bcc, one atom", "Cu4"])
def test_a_supercell_repeats_the_cell(name: str) -> None:
    atoms = STRUCTURES[name] if name in STRUCTURES else bulk("Cu", cubic=True)
    cell, supercell = predict(atoms, atoms.repeat((2, 1, 3)))
    assert supercell.energy == pytest.approx(6 * cell.energy, abs=6 * ROUNDING * len(atoms))
    assert np.abs(supercell.forces - np.tile(cell.forces, (6, 1))).max() <= ROUNDING * 10
    assert np.abs(supercell.stress - cell.stress).max() <= ROUNDING * 10


def test_a_left_handed_cell_describes_the_same_crystal() -> None:
    right = STRUCTURES["LiMnO2 rattled"]
    left = other_basis(right, [[-1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert left.cell.handedness == -1
    before, after = predict(right, left)
    assert after.energy == pytest.approx(before.energy, abs=ROUNDING * len(right))
    assert np.abs(after.forces - before.forces).max() <= ROUNDING
    assert np.abs(after.stress - before.stress).max() <= ROUNDING
    assert np.abs(before.stress).max() > 1e-4  # a wrong sign would be seen


def test_compression_makes_the_stress_negative() -> None:
    """Tension is positive in ASE, in a left-handed cell too."""
    crystal = bulk("MgO", "rocksalt", a=4.21, cubic=True)
    crystal.set_cell(0.95 * crystal.cell.array, scale_atoms=True)
    for atoms in (crystal, other_basis(crystal, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])):
        assert (predict(atoms)[0].stress[:3] < -0.05).all()


@pytest.mark.parametrize("name", [*CRYSTALS, "water, no cell"])
def test_forces_sum_to_zero(name: str) -> None:
    forces = predict(STRUCTURES[name])[0].forces
    # Every bond adds opposite gradients to its two atoms, so only the rounding of the sums is left.
    assert np.abs(forces.sum(axis=0)).max() <= 1e-13 * max(1.0, np.abs(forces).sum())


def test_a_molecule_feels_no_torque() -> None:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    torque = np.cross(atoms.positions, predict(atoms)[0].forces).sum(axis=0)
    assert np.abs(torque).max() <= ROUNDING


@functools.cache
def nve_energies(dtype: str, timestep: float) -> np.ndarray:
    """Total energy per atom (eV) over 0.2 ps of LiMnO2 that starts at 600 K; `timestep` in fs."""
    atoms = read(LIMNO2)
    thermalize_momenta(atoms, temperature_K=600, rng=np.random.default_rng(0))
    Stationary(atoms)
    atoms.calc = FastCHGNet(dtype=dtype)
    dynamics = VelocityVerlet(atoms, timestep=timestep * units.fs)
    return np.array([atoms.get_total_energy() / len(atoms) for _ in dynamics.irun(round(200 / timestep))])


def test_the_energy_error_of_nve_dynamics_falls_with_the_square_of_the_timestep() -> None:
    """So it is velocity Verlet's own. Forces that are not the slope of the energy heat at any timestep."""
    coarse, fine = nve_energies("float64", 2.0), nve_energies("float64", 1.0)
    assert np.std(coarse) > 1e-6  # there is something to fall
    assert np.std(fine) <= 0.35 * np.std(coarse)
    assert np.std(fine) <= 1e-4


def test_float32_conserves_energy_as_well_as_float64() -> None:
    """Its forces err by some 1e-5 eV/Å at random: over 200 steps of 1e-3 Å that sums up to 1e-7 eV/atom."""
    assert np.abs(nve_energies("float32", 1.0) - nve_energies("float64", 1.0)).max() <= 2e-6
