"""What the calculator returns: names, types, shapes, units; and that forces and stress are derivatives."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import CalculatorSetupError, PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.stress import full_3x3_to_voigt_6_stress

from ase_fastchgnet import FastCHGNet

NAMES = ["energy", "free_energy", "energies", "forces", "stress", "magmoms", "magmom"]
BACKENDS = ["torch", "reference"]


def test_exactly_these_properties_are_declared() -> None:
    assert FastCHGNet.implemented_properties == NAMES
    assert FastCHGNet.ignored_changes == {"initial_charges", "initial_magmoms"}
    assert FastCHGNet.discard_results_on_any_change


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_property_has_the_type_and_shape_that_ase_expects(salt: Atoms, name: str, dtype: str) -> None:
    shapes = {"energies": (8,), "forces": (8, 3), "stress": (6,), "magmoms": (8,)}
    value = FastCHGNet(dtype=dtype).get_property(name, salt)
    if name in shapes:
        assert isinstance(value, np.ndarray)
        assert value.dtype == np.float64
        assert value.shape == shapes[name]
    else:
        assert type(value) is float


def test_results_hold_declared_names_only(salt: Atoms) -> None:
    salt.calc = FastCHGNet()
    salt.get_stress()
    assert sorted(salt.calc.results) == sorted(NAMES)


def test_the_results_agree_among_themselves(iron: Atoms) -> None:
    iron.calc = FastCHGNet()
    assert iron.get_potential_energy(force_consistent=True) == iron.get_potential_energy()
    assert iron.get_potential_energies().sum() == pytest.approx(iron.get_potential_energy(), rel=1e-12)
    assert iron.get_magnetic_moment() == pytest.approx(iron.get_magnetic_moments().sum(), rel=1e-12)
    assert (iron.get_magnetic_moments() > 1).all()  # ferromagnetic iron, μ_B


def test_get_properties_returns_what_it_is_asked_for(salt: Atoms) -> None:
    salt.calc = FastCHGNet()
    properties = salt.get_properties(["energy", "forces", "stress"])
    assert properties["energy"] == salt.get_potential_energy()
    assert properties["forces"].shape == (8, 3)
    assert properties["stress"].shape == (6,)


def test_a_returned_array_may_be_written_to_without_changing_the_results(salt: Atoms) -> None:
    salt.calc = FastCHGNet()
    forces = salt.get_forces()
    forces[:] = 0
    assert np.abs(salt.get_forces()).max() > 0.1


@pytest.mark.parametrize("backend", BACKENDS)
def test_forces_are_minus_the_slope_of_the_energy(salt: Atoms, backend: str) -> None:
    salt.calc = FastCHGNet(dtype="float64", backend=backend)
    forces = salt.get_forces()[:2]
    # Step 1e-4: truncation 1e-8 relative, and rounding of 30 eV leaves 30 eV · 1e-15 / 1e-4 Å = 3e-10 eV/Å.
    numerical = calculate_numerical_forces(salt, eps=1e-4, iatoms=range(2), force_consistent=True)
    np.testing.assert_allclose(forces, numerical, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_stress_is_the_slope_of_the_energy_under_strain_per_volume(salt: Atoms, backend: str) -> None:
    salt.set_cell(salt.cell.array @ [[1.0, 0.03, 0.0], [0.0, 1.01, 0.02], [0.01, 0.0, 0.98]], scale_atoms=True)
    salt.calc = FastCHGNet(dtype="float64", backend=backend)
    stress = salt.get_stress()
    numerical = calculate_numerical_stress(salt, eps=1e-4, force_consistent=True)
    np.testing.assert_allclose(stress, full_3x3_to_voigt_6_stress(salt.get_stress(voigt=False)), rtol=1e-12)
    np.testing.assert_allclose(stress, numerical, atol=1e-7)


def test_a_stretched_crystal_is_under_tension_and_tension_is_positive(salt: Atoms) -> None:
    salt.set_cell(salt.cell.array * 1.06, scale_atoms=True)
    salt.calc = FastCHGNet()
    assert salt.get_stress()[:3].min() > 0


def test_float32_and_float64_agree_to_float32_rounding(salt: Atoms) -> None:
    single, double = FastCHGNet(), FastCHGNet(dtype="float64")
    # A few hundred roundings of 6e-8 relative, in energies of 4 eV/atom and forces of 1 eV/Å.
    assert single.get_potential_energy(salt) == pytest.approx(double.get_potential_energy(salt), abs=8 * 1e-5)
    np.testing.assert_allclose(single.get_forces(salt), double.get_forces(salt), atol=2e-5)


def test_a_molecule_without_cell_has_everything_but_stress(water: Atoms) -> None:
    water.calc = FastCHGNet()
    assert water.get_potential_energy() < 0
    assert water.get_forces().shape == (3, 3)
    assert water.get_magnetic_moments().shape == (3,)
    with pytest.raises(PropertyNotImplementedError, match="periodic in three directions"):
        water.get_stress()
    with pytest.raises(PropertyNotImplementedError):
        water.get_properties(["energy", "stress"])
    assert "stress" not in water.calc.results
    assert np.isfinite(water.get_potential_energy())


def test_a_slab_has_no_stress_and_does_not_feel_its_image(salt: Atoms) -> None:
    salt.calc = FastCHGNet()
    crystal = salt.get_potential_energy()
    salt.pbc = [True, True, False]
    assert salt.get_potential_energy() > crystal + 0.1
    with pytest.raises(PropertyNotImplementedError, match=r"pbc is \[True, True, False\]"):
        salt.get_stress()


def test_stresses_per_atom_are_refused(salt: Atoms) -> None:
    salt.calc = FastCHGNet()
    with pytest.raises(PropertyNotImplementedError):
        salt.get_stresses()


def test_embeddings_are_methods_with_the_shapes_of_stock(salt: Atoms) -> None:
    salt.calc = FastCHGNet()
    assert salt.calc.site_embeddings(salt).shape == (8, 64)
    assert salt.calc.crystal_embedding(salt).shape == (64,)
    before = salt.calc.site_embeddings()
    salt.rattle(0.1, seed=3)
    assert np.abs(salt.calc.site_embeddings(salt) - before).max() > 1e-3
    np.testing.assert_array_equal(salt.calc.site_embeddings(), salt.calc.site_embeddings(salt))


def test_a_calculator_without_structure_says_so() -> None:
    for ask in (FastCHGNet().get_potential_energy, FastCHGNet().get_stress, FastCHGNet().site_embeddings):
        with pytest.raises(CalculatorSetupError, match="no structure yet"):
            ask()


def test_released_models_are_different_models(salt: Atoms) -> None:
    energies = [FastCHGNet(name).get_potential_energy(salt) for name in ("0.3.0", "0.2.0", "r2scan")]
    assert len({round(energy, 2) for energy in energies}) == 3
