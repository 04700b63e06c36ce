"""Atoms without a neighbour: ignored, warned about once, or refused; and their energy is defined."""

import warnings

import numpy as np
import pytest
from ase import Atoms

from ase_fastchgnet import FastCHGNet


@pytest.fixture
def apart() -> Atoms:
    """A dimer and, 20 Å away, a lone atom, number 2."""
    return Atoms("NaClNa", positions=[[0, 0, 0], [0, 0, 2.5], [20, 0, 0]])


def test_a_warning_names_the_atom_and_the_remedy_once_in_a_trajectory(apart: Atoms) -> None:
    calc = FastCHGNet()
    with pytest.warns(UserWarning, match=r"system 0: atom 2 has no neighbour within 6 Å.*on_isolated_atoms='ignore'"):
        calc.get_potential_energy(apart)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            apart.rattle(0.01, seed=5)
            calc.get_forces(apart)
    apart.positions[1] += [0, 0, 30]  # now the others are alone as well
    with pytest.warns(UserWarning, match=r"atoms 0, 1, 2 have"):
        calc.get_forces(apart)


def test_another_structure_is_warned_about_anew(apart: Atoms) -> None:
    calc = FastCHGNet()
    for atoms in (apart, Atoms("ArNe", positions=[[0, 0, 0], [0, 0, 9]])):
        with pytest.warns(UserWarning, match="no neighbour"):
            calc.get_potential_energy(atoms)


def test_error_refuses_and_ignore_is_silent(apart: Atoms) -> None:
    with pytest.raises(ValueError, match=r"atom 2 has no neighbour within 6 Å"):
        FastCHGNet(on_isolated_atoms="error").get_potential_energy(apart)
    forces = FastCHGNet(on_isolated_atoms="ignore").get_forces(apart)
    np.testing.assert_array_equal(forces[2], 0.0)
    assert np.abs(forces[:2]).max() > 0.1


def test_the_energy_of_an_isolated_atom_does_not_depend_on_its_company(apart: Atoms) -> None:
    calc = FastCHGNet(on_isolated_atoms="ignore", dtype="float64")
    alone = calc.get_potential_energy(Atoms("Na"))
    assert calc.get_potential_energies(apart)[2] == pytest.approx(alone, abs=1e-12)


def test_the_cutoff_in_the_message_is_that_of_the_model(apart: Atoms) -> None:
    with pytest.raises(ValueError, match=r"within 5 Å"):
        FastCHGNet("0.2.0", on_isolated_atoms="error").get_potential_energy(apart)
