"""elastic: the elastic constants of a crystal and what follows from them."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.optimize.optimize import Optimizer
from ase.stress import voigt_6_to_full_3x3_stress

from ase_fastchgnet.evaluation.prediction import Array
from ase_fastchgnet.workflows.minima import crystal_at_minimum, deformed, evaluated, ions_at_minimum, precise
from ase_fastchgnet.workflows.structures import StructureT, as_atoms, as_given

if TYPE_CHECKING:
    from pymatgen.analysis.elasticity import ElasticTensor, Strain, Stress
    from pymatgen.core import Structure

_log = logging.getLogger(__name__)

FILES = ("elastic.json", "structure.extxyz")  # of Elasticity.write
SYMPREC = 0.01  # Å, of the symmetry that the constants are given; ASE's FixSymmetry has found it with the same
RESIDUAL_STRESS = 0.1  # GPa; with more, what is measured are not the constants of the crystal at rest
STRAINS = (-0.01, -0.005, 0.005, 0.01)  # both signs, so that what is quadratic in the strain cancels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Elasticity(Generic[StructureT]):
    """Elastic constants, in GPa and in the Cartesian axes of the structure; order xx yy zz yz xz xy."""

    structure: StructureT  # the minimum they hold for, of the kind that was given; Atoms carry their results
    tensor: Array  # (6, 6) GPa, stress = tensor @ (e_xx, e_yy, e_zz, 2 e_yz, 2 e_xz, 2 e_xy)
    spacegroup: str
    n_strained: int  # how many strained cells were computed; symmetry gave the others
    asymmetry: float  # GPa, the largest |C_ij - C_ji| as measured: how far to trust the digits

    @property
    def elastic_tensor(self) -> "ElasticTensor":
        """As pymatgen's ElasticTensor (GPa), for directional moduli, sound velocities, Debye temperature and so on."""
        from pymatgen.analysis.elasticity import ElasticTensor

        return ElasticTensor.from_voigt(self.tensor)

    @property
    def eigenvalues(self) -> Array:
        """Of the tensor (6,), GPa, ascending."""
        return np.asarray(np.linalg.eigvalsh(self.tensor), float)

    @property
    def stable(self) -> bool:
        """Born's criterion: whether every small strain costs energy, that is, all eigenvalues are positive."""
        return bool(self.eigenvalues[0] > 0)

    @property
    def bulk_modulus(self) -> float:
        """GPa, Hill's average of Voigt's and Reuss's."""
        return float(self.elastic_tensor.k_vrh)

    @property
    def shear_modulus(self) -> float:
        """GPa, Hill's average of Voigt's and Reuss's."""
        return float(self.elastic_tensor.g_vrh)

    @property
    def youngs_modulus(self) -> float:
        """GPa, of the isotropic polycrystal with Hill's moduli."""
        return float(self.elastic_tensor.y_mod) / 1e9

    @property
    def poisson_ratio(self) -> float:
        """Of the isotropic polycrystal with Hill's moduli."""
        return float(self.elastic_tensor.homogeneous_poisson)

    @property
    def universal_anisotropy(self) -> float:
        """Of Ranganathan and Ostoja-Starzewski; 0 if isotropic."""
        return float(self.elastic_tensor.universal_anisotropy)

    def moduli(self) -> dict[str, float]:
        """All of them under names with units."""
        tensor = self.elastic_tensor
        return {
            "bulk_modulus_voigt_GPa": float(tensor.k_voigt),
            "bulk_modulus_reuss_GPa": float(tensor.k_reuss),
            "bulk_modulus_hill_GPa": self.bulk_modulus,
            "shear_modulus_voigt_GPa": float(tensor.g_voigt),
            "shear_modulus_reuss_GPa": float(tensor.g_reuss),
            "shear_modulus_hill_GPa": self.shear_modulus,
            "youngs_modulus_GPa": self.youngs_modulus,
            "poisson_ratio": self.poisson_ratio,
            "universal_anisotropy": self.universal_anisotropy,
        }

    def write(self, folder: str | Path) -> list[Path]:
        """Write constants, moduli and the structure to a folder; the paths are returned."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        values, structure = paths = [folder / name for name in FILES]
        values.write_text(json.dumps(self._values(), indent=1) + "\n", encoding="utf-8")
        ase.io.write(structure, as_atoms(self.structure))
        return paths

    def __str__(self) -> str:
        moduli = self.moduli()
        rows = [" ".join(f"{value:8.1f}" for value in row) for row in self.tensor.round(1) + 0.0]  # no "-0.0"
        averages = (
            f"{kind:<14}{moduli[f'{kind}_modulus_voigt_GPa']:8.1f} {moduli[f'{kind}_modulus_reuss_GPa']:8.1f} "
            f"{moduli[f'{kind}_modulus_hill_GPa']:8.1f}"
            for kind in ("bulk", "shear")
        )
        lines = [
            f"{as_atoms(self.structure).get_chemical_formula()}, {self.spacegroup}",
            "elastic constants, GPa (xx yy zz yz xz xy)",
            *rows,
            "modulus, GPa     Voigt    Reuss     Hill",
            *averages,
            f"Young's       {self.youngs_modulus:26.1f}",
            f"Poisson's ratio      {self.poisson_ratio:8.3f}",
            f"universal anisotropy {self.universal_anisotropy:8.3f}",
            f"{'stable' if self.stable else 'UNSTABLE'}: lowest eigenvalue {self.eigenvalues[0]:.1f} GPa",
            f"measured C_ij and C_ji differ by up to {self.asymmetry:.1f} GPa",
        ]
        return "\n".join(lines)

    def _values(self) -> dict[str, Any]:
        return {
            "formula": as_atoms(self.structure).get_chemical_formula(),
            "spacegroup": self.spacegroup,
            "order": "xx yy zz yz xz xy",
            "tensor_GPa": (self.tensor.round(6) + 0.0).tolist(),
            **self.moduli(),
            "eigenvalues_GPa": self.eigenvalues.round(6).tolist(),
            "stable": self.stable,
            "asymmetry_GPa": self.asymmetry,
        }


def elastic(
    structure: StructureT,
    calculator: Calculator | None = None,
    *,
    relax: bool = True,
    relax_ions: bool = True,
    strains: Sequence[float] = STRAINS,
    fmax: float = 1e-4,
    optimizer: str | type[Optimizer] = "LBFGS",
    progress: bool | None = None,
) -> Elasticity[StructureT]:
    """Elastic constants of a crystal (ase.Atoms or pymatgen Structure) from the stress of strained cells.

    calculator  any ASE calculator that gives stress; None: FastCHGNet(dtype="float64")
    relax       relax atoms and cell first, keeping the space group; if False, the structure is taken as it is
    relax_ions  relax the atoms in each strained cell; if not, the constants are those of clamped ions
    strains     sizes of each of the six strains; those that symmetry makes equal are computed once
    fmax        eV/Å, of all relaxations
    optimizer   as in `relax`, of all relaxations
    progress    draw bars; None: on a terminal

    ImportError if pymatgen is missing, ValueError if the structure is no crystal, RelaxationError if a relaxation does
    not converge.  An unstable crystal is no error: see `stable`.
    """
    _require_pymatgen()
    from pymatgen.analysis.elasticity import ElasticTensor, Strain

    _check(strains)
    calculator = precise(calculator)
    start = crystal_at_minimum(
        as_atoms(structure),
        calculator,
        relaxed=not relax,
        fmax=fmax,
        fix_symmetry=True,
        optimizer=optimizer,
        progress=progress,
    )
    _warn_of_stress(start)
    crystal = _pymatgen(start)
    distinct = _distinct([Strain.from_index_amount(n, size) for n in range(6) for size in strains], crystal)
    frames = [deformed(start, strain.get_deformation_matrix("symmetric")) for strain, _ in distinct]
    if relax_ions:
        frames = ions_at_minimum(frames, calculator, fmax=fmax, optimizer=optimizer, progress=progress)
    else:
        frames = evaluated(frames, calculator)
    measured = _fit(distinct, frames, start)
    return Elasticity(
        structure=as_given(start, structure),
        tensor=np.array(ElasticTensor.from_voigt((measured + measured.T) / 2).fit_to_structure(crystal, SYMPREC).voigt),
        spacegroup=crystal.get_space_group_info(SYMPREC)[0],
        n_strained=len(frames),
        asymmetry=float(np.abs(measured - measured.T).max()),
    )


def _distinct(strains: "Sequence[Strain]", crystal: "Structure") -> "list[tuple[Strain, list[Array]]]":
    """One of each set of strains that symmetry makes equal, and the rotations (3, 3) that turn it into all of them."""
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    operations = SpacegroupAnalyzer(crystal, SYMPREC).get_symmetry_operations(cartesian=True)
    # Once each: a supercell has every rotation many times, with other translations (pymatgen's symmetry_reduce would
    # try them all).
    rotations = np.unique([operation.rotation_matrix.round(12) for operation in operations], axis=0)
    found: list[tuple[Strain, list[Array]]] = []
    for strain in strains:
        for one, ways in found:
            images = rotations @ np.asarray(one) @ rotations.transpose(0, 2, 1)
            same = np.abs(images - np.asarray(strain)).max(axis=(1, 2)) < 1e-8
            if same.any():
                ways.append(rotations[same.argmax()])
                break
        else:
            found.append((strain, [np.eye(3)]))
    return found


def _fit(distinct: "Sequence[tuple[Strain, list[Array]]]", frames: Sequence[Atoms], start: Atoms) -> Array:
    """Constants as measured (6, 6), GPa: slopes of second Piola-Kirchhoff stress against Green-Lagrange strain."""
    from pymatgen.analysis.elasticity import ElasticTensor

    strains: list[Array] = []
    stresses: list[Array] = []
    for (strain, rotations), atoms in zip(distinct, frames, strict=True):
        stress = _stress(atoms).piola_kirchoff_2(strain.get_deformation_matrix("symmetric"))
        strains += [r @ np.asarray(strain) @ r.T for r in rotations]
        stresses += [r @ np.asarray(stress) @ r.T for r in rotations]
    return np.array(ElasticTensor.from_independent_strains(strains, stresses, eq_stress=_stress(start)).voigt)


def _stress(atoms: Atoms) -> "Stress":
    """Of a structure with results, GPa, tension positive."""
    from pymatgen.analysis.elasticity import Stress

    return Stress(voigt_6_to_full_3x3_stress(atoms.get_stress() / units.GPa))


def _pymatgen(atoms: Atoms) -> "Structure":
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice(atoms.cell.array), atoms.get_chemical_symbols(), atoms.get_scaled_positions())


def _warn_of_stress(atoms: Atoms) -> None:
    largest = float(np.abs(atoms.get_stress()).max() / units.GPa)
    if largest > RESIDUAL_STRESS:
        _log.warning(
            "%s is under a stress of %.2g GPa: its constants are slopes of stress at that stress, not at rest",
            atoms.get_chemical_formula(),
            largest,
        )


def _check(strains: Sequence[float]) -> None:
    if not len(strains) or not all(0 < abs(strain) < 0.2 for strain in strains):
        raise ValueError(f"strains={strains!r}: expected sizes between 0 and 0.2 of either sign, such as {STRAINS}")


def _require_pymatgen() -> None:
    try:
        import pymatgen.core
    except ImportError as error:
        raise ImportError(f"{error}; elastic constants need it: pip install 'ase-fastchgnet[pymatgen]'") from error
    del pymatgen
