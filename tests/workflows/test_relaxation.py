"""relax and relax_many: minima, options, bad endings, and the same answers together as alone."""

from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.optimize import BFGS, FIRE
from structures import STRUCTURES, rattled

import ase_fastchgnet
from ase_fastchgnet import FastCHGNet, Relaxation, RelaxationError, evaluate, relax, relax_many

NAMES = ["NaCl", "Si", "MgO", "LiMnO2", "Mg hcp", "water, no cell", "W bcc, cubic cell"]


def moved(name: str) -> Atoms:
    """A small structure of the test set, off its minimum."""
    return rattled(STRUCTURES[name], (1, 1, 1), 0.05, seed=3)


@pytest.fixture(scope="module")
def salt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.5, cubic=True)
    atoms.rattle(0.1, seed=1)
    return atoms


@pytest.fixture(scope="module")
def relaxed(salt: Atoms) -> Relaxation[Atoms]:
    return relax(salt, fmax=0.02)


def test_what_is_relaxed_has_no_force_left_on_atoms_and_cell(relaxed: Relaxation[Atoms]) -> None:
    assert relaxed.converged
    assert relaxed.fmax < 0.02
    (again,) = evaluate([relaxed.structure])
    assert again.forces is not None
    assert again.stress is not None
    assert np.linalg.norm(again.forces, axis=1).max() < 0.02
    # FrechetCellFilter's force on the cell is -V σ / n_atoms near the reference cell; 1.2: the cell has changed since
    assert np.abs(again.stress).max() < 1.2 * 0.02 * 8 / relaxed.structure.cell.volume


def test_a_perturbed_crystal_finds_back_to_its_symmetric_minimum(relaxed: Relaxation[Atoms]) -> None:
    perfect = relax(bulk("NaCl", "rocksalt", a=5.5), fmax=0.002, optimizer="BFGS")
    # energies at a minimum differ in second order of what is left: fmax² / curvature, (0.02 eV/Å)² / 2 eV/Å² an atom
    assert relaxed.energy / 8 == pytest.approx(perfect.energy / 2, abs=3e-4)


def test_the_numbers_are_those_of_ase_driven_by_hand(salt: Atoms, relaxed: Relaxation[Atoms]) -> None:
    atoms = salt.copy()
    atoms.calc = FastCHGNet()
    dynamics = FIRE(FrechetCellFilter(atoms), logfile=None)
    dynamics.run(fmax=0.02, steps=500)
    assert relaxed.n_steps == dynamics.nsteps
    assert relaxed.energy == atoms.get_potential_energy()
    np.testing.assert_array_equal(relaxed.structure.positions, atoms.positions)
    np.testing.assert_array_equal(relaxed.structure.cell.array, atoms.cell.array)
    np.testing.assert_array_equal(relaxed.forces, atoms.get_forces())
    np.testing.assert_array_equal(relaxed.stress, atoms.get_stress())
    np.testing.assert_array_equal(relaxed.magmoms, atoms.get_magnetic_moments())


def test_the_result_keeps_every_step_and_the_last_is_the_structure(salt: Atoms, relaxed: Relaxation[Atoms]) -> None:
    frames = relaxed.frames
    assert len(frames) == relaxed.n_steps + 1
    np.testing.assert_array_equal(frames[0].positions, salt.positions)
    energies = [frame.get_potential_energy() for frame in frames]
    np.testing.assert_allclose(energies, [p.energy for p in evaluate(frames)], atol=8e-5)  # float32: 1e-5 eV/atom
    assert energies[-1] == relaxed.energy == relaxed.structure.get_potential_energy()
    assert frames[-1] == relaxed.structure


def test_what_was_given_is_not_changed(salt: Atoms) -> None:
    before, calculator = salt.copy(), FastCHGNet()
    salt.calc = calculator
    relax(salt, steps=2)
    assert salt == before
    assert salt.calc is calculator


def test_no_steps_are_a_single_point(salt: Atoms) -> None:
    result = relax(salt, steps=0)
    (prediction,) = evaluate([salt])
    assert (result.n_steps, result.converged, len(result.frames)) == (0, False, 1)
    assert result.structure == salt
    assert result.energy == pytest.approx(prediction.energy, abs=8e-5)  # float32: 1e-5 eV/atom


def test_running_out_of_steps_is_said(salt: Atoms) -> None:
    result = relax(salt, steps=3)
    assert (result.n_steps, result.converged) == (3, False)
    assert result.fmax > 0.05


def test_without_keep_frames_only_the_last_is_there(salt: Atoms) -> None:
    result = relax(salt, steps=3, keep_frames=False)
    assert len(result.frames) == 1
    assert result.frames[0].get_potential_energy() == result.energy


@pytest.mark.parametrize("optimizer", ["BFGS", "LBFGS", "BFGSLineSearch", "FIRE2", "MDMin", BFGS])
def test_any_ase_optimizer_finds_the_minimum(optimizer: Any) -> None:
    start = bulk("NaCl", "rocksalt", a=5.5)
    found, wanted = (relax(start, fmax=0.01, optimizer=name).structure.cell.volume for name in (optimizer, "FIRE"))
    # what is left of the force on the cell, 0.01 eV/Å, over V B / n = 23 Å³ · 0.15 eV/Å³ is a strain of 3e-3 at most
    assert found == pytest.approx(wanted, rel=6e-3)


def test_a_cell_that_is_not_to_relax_does_not(salt: Atoms) -> None:
    result = relax(salt, relax_cell=False)
    assert result.converged
    np.testing.assert_array_equal(result.structure.cell.array, salt.cell.array)
    assert not np.allclose(result.structure.positions, salt.positions, atol=0.01)


def test_what_is_not_periodic_relaxes_its_atoms_only() -> None:
    water = molecule("H2O")
    water.rattle(0.05, seed=1)
    slab = fcc111("Al", (1, 1, 3), a=4.05, vacuum=6.0)
    slab.set_constraint(FixAtoms([0]))
    for atoms in water, slab:
        result = relax(atoms)
        assert result.converged
        assert result.stress is None
        np.testing.assert_array_equal(result.structure.cell.array, atoms.cell.array)


def test_constraints_hold_and_come_back() -> None:
    slab = fcc111("Al", (1, 1, 3), a=4.05, vacuum=6.0)
    slab.positions[0, 2] += 0.1
    slab.set_constraint(FixAtoms([0]))
    result = relax(slab, fmax=0.01)
    np.testing.assert_array_equal(result.structure.positions[0], slab.positions[0])
    assert not np.allclose(result.structure.positions[2], slab.positions[2], atol=1e-3)
    assert [type(c) for c in result.structure.constraints] == [FixAtoms]
    assert (
        np.abs(result.forces[1:]).max() < 0.01 < np.abs(result.forces[0]).max()
    )  # the forces are those of the model, without the constraint


def test_pressure_compresses_until_the_stress_balances_it() -> None:
    result = relax(bulk("MgO", "rocksalt", a=4.21), pressure=10.0, fmax=1e-3, optimizer="BFGS")
    assert result.stress is not None
    pressure = -result.stress[:3] / units.GPa
    # 1e-3 eV/Å on the cell is 1e-3 · n_atoms / V, here 1e-4 eV/Å³ or 0.02 GPa
    np.testing.assert_allclose(pressure, 10.0, atol=0.03)
    np.testing.assert_allclose(result.stress[3:], 0, atol=1e-4)


def test_constant_volume_changes_the_shape_only() -> None:
    sheared = bulk("NaCl", "rocksalt", a=5.5, cubic=True)
    sheared.set_cell(sheared.cell.array @ np.diag([1.04, 1.0, 0.97]), scale_atoms=True)
    result = relax(sheared, constant_volume=True, fmax=0.01, optimizer="BFGS")
    assert result.structure.cell.volume == pytest.approx(sheared.cell.volume, rel=1e-6)
    assert np.ptp(result.structure.cell.lengths()) < 0.2 * np.ptp(sheared.cell.lengths())


def test_a_mask_holds_the_other_strains() -> None:
    result = relax(bulk("NaCl", "rocksalt", a=5.5, cubic=True), mask=[False, False, True, False, False, False])
    a, b, c = result.structure.cell.lengths()
    assert a == pytest.approx(5.5, abs=1e-12)
    assert b == pytest.approx(5.5, abs=1e-12)
    assert c > 5.55


def test_fix_symmetry_keeps_what_a_free_relaxation_loses() -> None:
    # Cubic BaTiO3 is a saddle point: titanium wants to leave the centre of its octahedron.
    perovskite = Atoms(
        "BaTiO3",
        scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
        cell=[4.0] * 3,
        pbc=True,
    )
    perovskite.positions[1, 2] += 5e-3  # within the tolerance of the symmetry search
    held, free = (relax(perovskite, fix_symmetry=held, fmax=0.01, optimizer="BFGS") for held in (True, False))
    assert np.ptp(held.structure.cell.lengths()) < 1e-6
    assert np.ptp(free.structure.cell.lengths()) > 0.05
    assert held.energy > free.energy + 0.01
    assert not held.structure.constraints


def test_pymatgen_in_pymatgen_out() -> None:
    core = pytest.importorskip("pymatgen.core", reason="pymatgen is an extra")
    structure = core.Structure(
        core.Lattice.cubic(4.3), ["Mg2+", "O2-"], [[0, 0, 0], [0.5, 0.5, 0.5]], site_properties={"label": ["a", "b"]}
    )
    before = structure.copy()
    result = relax(structure, steps=5)
    assert structure == before
    assert type(result.structure) is core.Structure
    assert [str(s) for s in result.structure.species] == ["Mg2+", "O2-"]
    assert result.structure.site_properties["label"] == ["a", "b"]
    np.testing.assert_array_equal(result.structure.site_properties["magmom"], result.magmoms)
    np.testing.assert_allclose(result.structure.lattice.matrix, result.frames[-1].cell.array)
    np.testing.assert_allclose(result.structure.cart_coords, result.frames[-1].positions, atol=1e-12)
    disordered = core.Structure(core.Lattice.cubic(4.3), [{"Mg": 0.5, "Ca": 0.5}], [[0, 0, 0]])
    with pytest.raises(ValueError, match="partial occupancy"):
        relax(disordered)


def test_an_explosion_is_an_error_that_shows_the_way_there() -> None:
    with pytest.raises(RelaxationError, match=r"exploded: after step \d+ .* volume 4") as caught:
        relax(bulk("MgO", "rocksalt", a=4.21), pressure=-200.0)  # no crystal bears such tension
    frames = caught.value.frames
    volumes = [frame.cell.volume for frame in frames]
    assert len(frames) > 3
    assert volumes == sorted(volumes)
    assert volumes[-1] < 4 * volumes[0]
    assert np.isfinite(frames[-1].get_forces()).all()


def test_atoms_that_meet_are_reported_with_the_step() -> None:
    class Leap(FIRE):
        """Puts all atoms on one spot in its third step."""

        def step(self, f: Any = None) -> None:
            super().step(f)
            if self.nsteps == 2:
                self.optimizable.set_x(np.zeros(self.optimizable.ndofs()))

    with pytest.raises(RelaxationError, match=r"step 3 leads to no structure: .*closer than") as caught:
        relax(moved("NaCl"), optimizer=Leap, relax_cell=False)
    assert len(caught.value.frames) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relax_cell": True, "structure": molecule("H2O")}, "periodic in three directions"),
        ({"pressure": 1.0, "relax_cell": False}, "concern the cell"),
        ({"optimizer": "Newton"}, "'Newton' is not one of .*FIRE"),
        ({"structure": Atoms("He2", positions=[[0, 0, 0], [0, 0, 0.005]])}, "closer than"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, Any], message: str) -> None:
    structure = options.pop("structure", bulk("NaCl", "rocksalt", a=5.5))
    with pytest.raises(ValueError, match=message):
        relax(structure, **options)


def test_what_is_no_structure_is_refused() -> None:
    with pytest.raises(TypeError, match=r"read a file with ase.io.read"):
        relax("POSCAR")


def test_write(relaxed: Relaxation[Atoms], tmp_path: Any) -> None:
    relaxed.write(tmp_path / "final.extxyz")
    relaxed.write(tmp_path / "all.traj", trajectory=True)
    final, frames = read(tmp_path / "final.extxyz"), read(tmp_path / "all.traj", ":")
    assert isinstance(final, Atoms)
    assert final.get_potential_energy() == pytest.approx(relaxed.energy, abs=1e-6)
    assert [f.get_potential_energy() for f in frames] == [f.get_potential_energy() for f in relaxed.frames]


def test_together_as_alone() -> None:
    structures = [moved(name) for name in NAMES]
    together = relax_many(structures, fmax=0.05, steps=40)
    alone = [relax(atoms, fmax=0.05, steps=40) for atoms in structures]
    for one, many in zip(alone, together, strict=True):
        assert isinstance(many, Relaxation)
        assert many.n_steps == one.n_steps
        assert many.converged == one.converged
        assert many.energy / len(many.forces) == pytest.approx(one.energy / len(one.forces), abs=1e-5)
    assert len({one.n_steps for one in alone}) > 3  # they left at different times


def test_in_float64_together_is_alone_to_the_tenth_digit() -> None:
    structures = [moved(name) for name in ("NaCl", "Si", "MgO")]
    calculator = FastCHGNet(dtype="float64")
    for optimizer in ("FIRE", "BFGSLineSearch"):
        together = relax_many(structures, calculator, steps=8, optimizer=optimizer)
        alone = [relax(atoms, calculator, steps=8, optimizer=optimizer) for atoms in structures]
        for one, many in zip(alone, together, strict=True):
            assert isinstance(many, Relaxation)
            np.testing.assert_allclose(many.structure.positions, one.structure.positions, rtol=0, atol=1e-10)


def test_one_that_fails_does_not_hold_up_the_others() -> None:
    good = bulk("NaCl", "rocksalt", a=5.5)
    overlapping = Atoms("He2", positions=[[0, 0, 0], [0, 0, 0.005]])
    results = relax_many([good, overlapping, good], steps=3)
    assert [type(result) for result in results] == [Relaxation, ValueError, Relaxation]
    assert str(results[1]).startswith("system 1: atoms 0 (He) and 1 (He)")
    exploding = relax_many([good, bulk("MgO", "rocksalt", a=4.21)], pressure=-200.0)
    assert all(isinstance(result, RelaxationError) for result in exploding)


def test_an_error_that_is_no_fault_of_a_structure_is_raised() -> None:
    with pytest.raises(TypeError, match=r"expected an ase\.Atoms"):
        relax_many([bulk("NaCl", "rocksalt", a=5.5), "POSCAR"])
    with pytest.raises(TypeError, match="unexpected keyword"):
        relax_many([bulk("NaCl", "rocksalt", a=5.5)], colour="red")


def test_nothing_to_relax() -> None:
    assert relax_many([]) == []


def test_the_names_are_public() -> None:
    assert {"relax", "relax_many", "Relaxation", "RelaxationError"} <= set(ase_fastchgnet.__all__)
