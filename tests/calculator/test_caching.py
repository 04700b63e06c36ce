"""Nothing stale is returned, and nothing is computed twice."""

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atom, Atoms
from ase.build import bulk

from ase_fastchgnet import FastCHGNet

Passes = Callable[[], list[str]]


def move(atoms: Atoms) -> None:
    atoms.positions[0, 0] += 0.1


def move_by_one_bit(atoms: Atoms) -> None:
    atoms.positions[1, 1] = np.nextafter(atoms.positions[1, 1], np.inf)


def strain(atoms: Atoms) -> None:
    atoms.set_cell(atoms.cell.array * 1.01, scale_atoms=False)


def substitute(atoms: Atoms) -> None:
    atoms.numbers[0] = 19


def make_a_slab(atoms: Atoms) -> None:
    atoms.pbc[2] = False


def append(atoms: Atoms) -> None:
    atoms.append(Atom("Li", atoms.cell.array.sum(axis=0) / 4))


def remove(atoms: Atoms) -> None:
    del atoms[3]


def swap(atoms: Atoms) -> None:
    atoms.numbers[[0, 1]] = atoms.numbers[[1, 0]]


@pytest.mark.parametrize("change", [move, strain, substitute, make_a_slab, append, remove, swap])
@pytest.mark.parametrize("first", ["energy", "forces"])
def test_no_stale_result_after(salt: Atoms, change: Callable[[Atoms], None], first: str) -> None:
    salt.calc = FastCHGNet(dtype="float64")
    salt.calc.get_property(first, salt)
    change(salt)
    fresh = salt.copy()
    fresh.calc = FastCHGNet(dtype="float64")
    # The forces first: after an energy they would come from what that energy left behind.
    np.testing.assert_allclose(salt.get_forces(), fresh.get_forces(), atol=1e-10)
    assert salt.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-10)
    np.testing.assert_allclose(salt.calc.site_embeddings(), fresh.calc.site_embeddings(), atol=1e-10)


def test_the_smallest_change_counts(salt: Atoms, passes: Passes) -> None:
    salt.calc = FastCHGNet()
    salt.get_potential_energy()
    move_by_one_bit(salt)
    salt.get_potential_energy()
    assert passes() == ["forward", "forward"]


def test_a_long_walk_within_and_beyond_the_skin_equals_fresh_calculators(salt: Atoms) -> None:
    salt.calc = FastCHGNet(dtype="float64", skin=0.5)
    random = np.random.default_rng(4)
    for _ in range(8):
        salt.positions += random.normal(scale=0.15, size=(8, 3))
        fresh = FastCHGNet(dtype="float64", skin=0.0)
        np.testing.assert_array_equal(salt.get_forces(), fresh.get_forces(salt))


def test_one_calculator_may_serve_structures_in_turn(salt: Atoms, iron: Atoms, water: Atoms) -> None:
    shared = FastCHGNet()
    structures = [salt, iron, water, salt.repeat((2, 1, 1))]
    alone = [FastCHGNet().get_forces(atoms) for atoms in structures]
    for _ in range(2):
        for atoms, forces in zip(structures, alone, strict=True):
            np.testing.assert_array_equal(shared.get_forces(atoms), forces)


def test_an_energy_costs_the_forward_pass_only(salt: Atoms, passes: Passes) -> None:
    salt.calc = FastCHGNet()
    salt.get_potential_energy()
    salt.get_potential_energies()
    salt.get_magnetic_moments()
    salt.get_magnetic_moment()
    salt.calc.site_embeddings()
    assert passes() == ["forward"]


def test_forces_after_an_energy_cost_the_adjoint_only(salt: Atoms, passes: Passes) -> None:
    salt.calc = FastCHGNet()
    energy = salt.get_potential_energy()
    assert passes() == ["forward"]
    forces = salt.get_forces()
    assert passes() == ["adjoint"]
    assert salt.get_potential_energy() == energy
    np.testing.assert_array_equal(forces, FastCHGNet().get_forces(salt))


@pytest.mark.parametrize("first", ["forces", "stress"])
def test_forces_stress_energy_and_moments_come_together(salt: Atoms, passes: Passes, first: str) -> None:
    salt.calc = FastCHGNet()
    salt.calc.get_property(first, salt)
    for name in FastCHGNet.implemented_properties:
        salt.calc.get_property(name, salt)
    salt.calc.site_embeddings(salt)
    salt.calc.crystal_embedding()
    assert passes() == ["forward", "adjoint"]


def test_get_properties_uses_what_is_there(salt: Atoms, passes: Passes) -> None:
    salt.calc = FastCHGNet()
    salt.get_potential_energy()
    salt.get_properties(["energy", "magmoms"])
    salt.get_properties(["energy", "forces", "stress"])
    salt.get_properties(["stress"])
    assert passes() == ["forward", "adjoint"]


def test_asking_a_molecule_for_stress_computes_nothing(water: Atoms, passes: Passes) -> None:
    water.calc = FastCHGNet()
    for _ in range(2):
        with pytest.raises(NotImplementedError):
            water.get_stress()
    assert passes() == []


def test_initial_moments_and_charges_and_what_is_no_input_change_nothing(iron: Atoms, passes: Passes) -> None:
    iron.calc = FastCHGNet()
    iron.get_forces()
    iron.set_initial_magnetic_moments([2.0, -2.0])
    iron.set_initial_charges([1.0, -1.0])
    iron.set_momenta(np.ones((2, 3)))
    iron.info["comment"] = "a note"
    iron.get_forces()
    assert not iron.calc.calculation_required(iron, ["energy", "forces"])
    assert passes() == ["forward", "adjoint"]


def test_looking_without_calculating_calculates_nothing(salt: Atoms, passes: Passes) -> None:
    salt.calc = FastCHGNet()
    assert salt.calc.get_property("energy", salt, allow_calculation=False) is None
    assert salt.calc.get_property("stress", salt, allow_calculation=False) is None
    salt.get_forces()
    move(salt)
    assert salt.calc.get_property("forces", salt, allow_calculation=False) is None
    assert passes() == ["forward", "adjoint"]


def test_a_failed_calculation_leaves_nothing_behind(salt: Atoms) -> None:
    salt.calc = FastCHGNet()
    energy = salt.get_potential_energy()
    good = salt.positions.copy()
    salt.positions[0] = np.nan
    for _ in range(2):
        with pytest.raises(ValueError, match="atom 0"):
            salt.get_potential_energy()
    assert salt.calc.results == {}
    salt.positions = good
    assert salt.get_potential_energy() == energy


def test_changing_an_option_forgets_the_results(salt: Atoms, passes: Passes) -> None:
    salt.calc = FastCHGNet()
    first = salt.get_potential_energy()
    assert salt.calc.set(model="0.2.0") == {"model": "0.2.0"}
    assert salt.calc.results == {}
    assert abs(salt.get_potential_energy() - first) > 1e-3
    salt.calc.set(model="0.3.0", dtype="float64")
    assert salt.get_potential_energy() == pytest.approx(first, abs=1e-4)
    assert passes() == ["forward"] * 3


def test_a_refused_option_changes_nothing(salt: Atoms) -> None:
    salt.calc = FastCHGNet()
    energy = salt.get_potential_energy()
    for bad in ({"dtype": "float16"}, {"model": "0.4.0"}, {"arch": "mace"}, {"modle": "0.2.0"}):
        with pytest.raises((ValueError, TypeError)):
            salt.calc.set(**bad)
    assert salt.calc.results["energy"] == energy
    assert salt.calc.parameters["dtype"] == "float32"


def test_calculators_in_one_process_do_not_disturb_each_other(salt: Atoms, iron: Atoms) -> None:
    old, new, double = FastCHGNet("0.2.0"), FastCHGNet("0.3.0"), FastCHGNet("0.3.0", dtype="float64")
    also_new = FastCHGNet("0.3.0")  # shares its weights with `new`
    expected = [calc.get_forces(salt) for calc in (old, new, double)]
    # Interleaved: each has a forward pass pending when the others run theirs.
    moved = salt.copy()
    moved.rattle(0.05, seed=9)
    for calc in (old, new, double):
        calc.get_potential_energy(moved)
    also_new.get_forces(iron)
    for calc in (old, new, double):
        calc.get_potential_energy(salt)
    also_new.get_forces(moved)
    for calc, forces in zip((old, new, double), expected, strict=True):
        np.testing.assert_array_equal(calc.get_forces(salt), forces)


def test_the_structure_of_the_results_is_a_copy(salt: Atoms) -> None:
    salt.calc = FastCHGNet()
    salt.get_potential_energy()
    assert salt.calc.get_atoms() == Atoms(salt.numbers, salt.positions, cell=salt.cell, pbc=True)
    salt.positions += 1
    assert salt.calc.atoms.positions[0, 0] == pytest.approx(salt.positions[0, 0] - 1)


def test_an_equal_structure_in_another_object_needs_no_computation(passes: Passes) -> None:
    calc = FastCHGNet()
    for _ in range(3):
        calc.get_potential_energy(bulk("Cu"))
    assert passes() == ["forward"]
