"""Structures at the border of a workflow: ASE Atoms or pymatgen Structure in, the same kind out."""

import sys
from typing import Any, TypeVar

import numpy as np
from ase import Atoms

StructureT = TypeVar("StructureT")  # ase.Atoms or pymatgen.core.Structure


def as_atoms(structure: Any) -> Atoms:
    """A copy of `structure` (ase.Atoms or pymatgen Structure) as Atoms, constraints kept, calculator not.

    Raises TypeError for anything else, ValueError for a pymatgen structure with partial occupancies.
    """
    if isinstance(structure, Atoms):
        return structure.copy()  # type: ignore[no-any-return]
    if not _is_pymatgen(structure):
        raise TypeError(
            f"expected an ase.Atoms or a pymatgen Structure, got {type(structure).__name__}; read a file with "
            "ase.io.read(path) or Structure.from_file(path)"
        )
    if not structure.is_ordered:
        raise ValueError(
            f"{structure.formula}: sites with partial occupancy cannot be evaluated; order it first, for example with "
            "pymatgen's OrderDisorderedStructureTransformation"
        )
    return Atoms(
        numbers=[site.specie.Z for site in structure],
        positions=structure.cart_coords,
        cell=structure.lattice.matrix,
        pbc=structure.lattice.pbc,
    )


def as_given(atoms: Atoms, template: StructureT) -> StructureT:
    """`atoms` in the kind of `template`, which has the same atoms in the same order.

    Atoms come back as they are. A pymatgen Structure keeps the species (oxidation states too) and site properties of
    `template`, and gets magnetic moments as the site property "magmom" if `atoms` has them calculated.
    """
    if isinstance(template, Atoms):
        return atoms  # type: ignore[return-value]
    old: Any = template
    lattice = type(old.lattice)(atoms.cell.array, pbc=tuple(bool(p) for p in atoms.pbc))
    new = type(old)(
        lattice,
        old.species,
        atoms.positions,
        coords_are_cartesian=True,
        charge=old._charge,
        site_properties=old.site_properties,
    )
    if atoms.calc is not None and "magmoms" in atoms.calc.results:
        new.add_site_property("magmom", np.asarray(atoms.calc.results["magmoms"]).tolist())
    return new  # type: ignore[no-any-return]


def _is_pymatgen(structure: object) -> bool:
    """Whether it is a pymatgen Structure; without importing pymatgen, which whoever made one has done already."""
    core = sys.modules.get("pymatgen.core")
    return core is not None and isinstance(structure, core.IStructure)
