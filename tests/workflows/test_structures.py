"""Structures in and out of workflows."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from ase_fastchgnet.workflows.structures import as_atoms, as_given

core = pytest.importorskip("pymatgen.core", reason="pymatgen is an extra")


def rutile() -> "core.Structure":
    return core.Structure.from_spacegroup(
        "P4_2/mnm", core.Lattice.tetragonal(4.59, 2.96), ["Ti4+", "O2-"], [[0, 0, 0], [0.305, 0.305, 0]]
    )


def test_atoms_come_as_a_copy_with_their_constraints_and_without_their_calculator() -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.set_constraint(FixAtoms([1]))
    atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    copy = as_atoms(atoms)
    assert copy == atoms
    assert copy is not atoms
    assert copy.calc is None
    assert copy.constraints[0].index.tolist() == [1]


def test_a_structure_and_its_atoms_are_the_same_crystal() -> None:
    structure = rutile()
    atoms = as_atoms(structure)
    assert atoms.get_chemical_formula() == "O4Ti2"
    assert atoms.pbc.all()
    np.testing.assert_allclose(atoms.get_scaled_positions(wrap=False), structure.frac_coords, atol=1e-12)
    assert as_given(atoms, structure) == structure


def test_the_way_back_keeps_species_charge_and_site_properties_and_takes_the_new_geometry() -> None:
    structure = rutile()
    structure.add_site_property("selective_dynamics", [[True, False, True]] * 6)
    structure.set_charge(1.0)
    atoms = as_atoms(structure)
    atoms.set_cell(atoms.cell * 1.1, scale_atoms=True)
    atoms.calc = SinglePointCalculator(atoms, magmoms=np.arange(6.0))
    back = as_given(atoms, structure)
    assert back.species == structure.species
    assert back._charge == 1.0  # asking for `charge` warns that oxidation states say otherwise
    assert back.site_properties["selective_dynamics"] == structure.site_properties["selective_dynamics"]
    assert back.site_properties["magmom"] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert back.volume == pytest.approx(1.1**3 * structure.volume)


def test_periodicity_goes_both_ways() -> None:
    lattice = core.Lattice.cubic(8.0, pbc=(True, True, False))
    slab = core.Structure(lattice, ["Al"], [[0, 0, 0.5]])
    assert as_atoms(slab).pbc.tolist() == [True, True, False]
    assert as_given(as_atoms(slab), slab).lattice.pbc == (True, True, False)


def test_atoms_pass_through_as_they_are() -> None:
    water = molecule("H2O")
    assert as_given(water, Atoms("H2O")) is water


@pytest.mark.parametrize("wrong", [None, "POSCAR", [bulk("Si")]])
def test_anything_else_is_refused_with_a_remedy(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"expected an ase\.Atoms or a pymatgen Structure, got"):
        as_atoms(wrong)
