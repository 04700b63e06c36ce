"""phonons: from a crystal to its bands, densities of states and thermal properties, by phonopy."""

import csv
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from ase_fastchgnet.evaluation.prediction import Array
from ase_fastchgnet.parallel.crew import Devices
from ase_fastchgnet.parallel.scheduler import Submits
from ase_fastchgnet.progress import progress as progress_of
from ase_fastchgnet.workflows import phonon_plots
from ase_fastchgnet.workflows.calculators import results_of
from ase_fastchgnet.workflows.minima import crystal_at_minimum, precise
from ase_fastchgnet.workflows.phonon_spectrum import Band, Dos, Mode, Thermal, spectrum
from ase_fastchgnet.workflows.structures import StructureT, as_atoms, as_given

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from phonopy import Phonopy

_log = logging.getLogger(__name__)

FILES = (  # of Phonons.write
    "phonopy_params.yaml",
    "structure.extxyz",
    "bands.png",
    "dos.png",
    "thermal.png",
    "bands.csv",
    "dos.csv",
    "thermal.csv",
)
ROOM = 300.0  # K, of the summary


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Phonons(Generic[StructureT]):
    """Phonons of a crystal; imaginary frequencies are negative numbers."""

    structure: StructureT  # the minimum they were computed at, of the kind that was given; Atoms carry their results
    phonopy: "Phonopy"  # with its force constants, for all else that phonopy does
    bands: tuple[Band, ...]  # along seekpath's path, piece by piece
    dos: Dos
    thermal: Thermal
    imaginary: tuple[Mode, ...]  # the lowest of all modes, and those at labelled points; empty if none is imaginary
    imaginary_share: float  # of all modes on the mesh

    @property
    def stable(self) -> bool:
        """Whether no mode is imaginary, neither along the path nor on the mesh."""
        return not self.imaginary

    def plot_bands(self) -> "tuple[Figure, Axes]":
        """Frequencies along the path."""
        return phonon_plots.plot_bands(self.bands)

    def plot_dos(self) -> "tuple[Figure, Axes]":
        """Density of states and the share of each element."""
        return phonon_plots.plot_dos(self.dos)

    def plot_thermal(self) -> "tuple[Figure, Axes]":
        """Heat capacity and entropy, and on an axis of its own the free energy, against temperature."""
        return phonon_plots.plot_thermal(self.thermal, self.imaginary_share)

    def write(self, folder: str | Path) -> list[Path]:
        """Write phonopy_params.yaml, the structure, figures and tables to a folder; the paths are returned."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / name for name in FILES]
        self.phonopy.save(paths[0])
        ase.io.write(paths[1], as_atoms(self.structure))
        for path, plot in zip(paths[2:5], (self.plot_bands, self.plot_dos, self.plot_thermal), strict=True):
            plot()[0].savefig(path, dpi=150)
        for path, rows in zip(paths[5:], (self._band_rows(), self._dos_rows(), self._thermal_rows()), strict=True):
            with open(path, "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows)
        return paths

    def __str__(self) -> str:
        return "\n".join(_summary(self))

    def _band_rows(self) -> Iterable[Sequence[Any]]:
        n_modes = self.bands[0].frequencies.shape[1]
        yield ["piece", "distance_per_A", "q1", "q2", "q3", *(f"mode{n}_THz" for n in range(1, n_modes + 1))]
        for band in self.bands:
            for distance, q, frequencies in zip(band.distances, band.qpoints, band.frequencies, strict=True):
                yield [f"{band.start}-{band.end}", *_rounded([distance, *q, *frequencies])]

    def _dos_rows(self) -> Iterable[Sequence[Any]]:
        yield ["frequency_THz", "total_per_THz", *(f"{symbol}_per_THz" for symbol in self.dos.elements)]
        columns = (self.dos.frequencies, self.dos.total, *self.dos.elements.values())
        yield from map(_rounded, zip(*columns, strict=True))

    def _thermal_rows(self) -> Iterable[Sequence[Any]]:
        names = ("free_energy_eV_per_atom", "entropy_J_per_K_mol_atoms", "heat_capacity_J_per_K_mol_atoms")
        yield ["temperature_K", *names]
        thermal = self.thermal
        columns = (thermal.temperatures, thermal.free_energy, thermal.entropy, thermal.heat_capacity)
        yield from map(_rounded, zip(*columns, strict=True))


def phonons(
    structure: StructureT,
    calculator: Calculator | None = None,
    *,
    relax: bool = True,
    fmax: float = 1e-4,
    supercell: float | Sequence[int] | Sequence[Sequence[int]] = 12.0,
    displacement: float = 0.01,
    fc_calculator: Literal["traditional", "symfc"] = "traditional",
    mesh: float = 40.0,
    temperatures: Sequence[float] = range(0, 1001, 10),
    devices: Devices = None,
    executor: Submits | None = None,
    progress: bool | None = None,
) -> Phonons[StructureT]:
    """Phonons of a crystal (ase.Atoms or pymatgen Structure) from finite displacements, by phonopy.

    calculator     any ASE calculator; None: FastCHGNet(dtype="float64")
    relax          relax atoms and cell first, keeping the space group; if False, the structure is taken as it is
    fmax           eV/Å, of that relaxation, and the largest force that passes without a warning if relax=False
    supercell      Å, its least thickness, by repeating the cell; or the three repeats; or phonopy's 3 × 3 matrix
    displacement   Å
    fc_calculator  how force constants are made of forces: phonopy's own way, or a fit by symfc
    mesh           Å; q-points of the densities of states are 2π/mesh apart, or a little less
    temperatures   K, of the thermal properties
    devices        processes that share the displaced supercells, as for `evaluate_many`
    executor       instead of devices, likewise
    progress       draw bars; None: on a terminal

    Imaginary modes are part of the result, and logged.  ImportError if phonopy or seekpath is missing, ValueError if
    the structure is no crystal, RelaxationError if it does not relax.
    """
    _require_packages()
    calculator = precise(calculator)
    atoms = crystal_at_minimum(
        as_atoms(structure), calculator, relaxed=not relax, fmax=fmax, fix_symmetry=True, progress=progress
    )
    phonopy = _phonopy(atoms, supercell)
    phonopy.generate_displacements(distance=displacement)
    phonopy.forces = _forces(phonopy, atoms, calculator, devices, executor, progress)
    phonopy.produce_force_constants(fc_calculator=fc_calculator)
    if fc_calculator == "traditional":  # symfc's have all symmetries from the start
        phonopy.symmetrize_force_constants()
    found = spectrum(phonopy, mesh=mesh, temperatures=temperatures)
    if found.imaginary:
        _log.warning(
            "%s, %s: this is no minimum, or the supercell is too small",
            atoms.get_chemical_formula(),
            _describe(found.imaginary, found.imaginary_share),
        )
    return Phonons(structure=as_given(atoms, structure), phonopy=phonopy, **found._asdict())


def _phonopy(atoms: Atoms, supercell: float | Sequence[int] | Sequence[Sequence[int]]) -> "Phonopy":
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms
    from phonopy.structure.cells import guess_primitive_matrix

    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array * np.sign(np.linalg.det(atoms.cell.array)),  # phonopy wants it right-handed
        positions=atoms.positions,
        masses=atoms.get_masses(),
    )
    if np.ndim(supercell) == 0:
        heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)  # between opposite faces of the cell
        supercell = [int(n) for n in np.ceil(np.asarray(supercell) / heights - 1e-6)]
    matrix = np.diag(supercell) if np.ndim(supercell) == 1 else np.asarray(supercell)
    return Phonopy(cell, supercell_matrix=matrix, primitive_matrix=guess_primitive_matrix(cell))


def _forces(
    phonopy: "Phonopy",
    atoms: Atoms,
    calculator: Calculator,
    devices: Devices,
    executor: Submits | None,
    progress: bool | None,
) -> Array:
    """Forces (displacements, supercell atoms, 3), eV/Å, less those that the crystal has undisplaced."""
    displaced = [
        Atoms(numbers=one.numbers, positions=one.positions, cell=one.cell, pbc=True)
        for one in phonopy.supercells_with_displacements
    ]
    _log.info("displaced supercells: %d of %d atoms each", len(displaced), len(displaced[0]))
    forces: list[Array] = []
    with progress_of("displaced supercells", len(displaced), progress) as meter:
        for results in results_of(displaced, calculator, ("forces",), devices=devices, executor=executor):
            forces.append(results["forces"])
            meter.update(len(forces))
    cell = phonopy.supercell
    resting = atoms.get_forces()[[cell.u2u_map[n] for n in cell.s2u_map]]
    return np.asarray(np.array(forces) - resting)


def _require_packages() -> None:
    try:
        import phonopy
        import seekpath
    except ImportError as error:
        raise ImportError(f"{error}; phonons need it: pip install 'ase-fastchgnet[phonons]'") from error
    del phonopy, seekpath


def _rounded(numbers: Iterable[float]) -> list[float]:
    """For a file: THz, eV and 1/Å to six decimals say all there is to know."""
    return [round(float(number), 6) for number in numbers]


def _summary(found: Phonons[Any]) -> Iterable[str]:
    """What to know first, line by line."""
    atoms, phonopy, thermal = as_atoms(found.structure), found.phonopy, found.thermal
    symmetry = phonopy.symmetry.dataset
    yield ", ".join([atoms.get_chemical_formula(), *([symmetry.international] if symmetry else [])])
    displaced, cell = phonopy.supercells_with_displacements, phonopy.supercell
    repeats = np.diagonal(phonopy.supercell_matrix)
    diagonal = np.array_equal(np.diag(repeats), phonopy.supercell_matrix)
    yield (
        f"{len(displaced)} displaced {'supercell' if len(displaced) == 1 else 'supercells'} of {len(cell)} atoms"
        + (f" ({' × '.join(map(str, repeats))} cells)" if diagonal else "")
    )
    yield f"highest frequency  {max(band.frequencies.max() for band in found.bands):.2f} THz"
    yield f"zero-point energy  {1000 * thermal.zero_point_energy:.2f} meV/atom"
    at = int(np.abs(thermal.temperatures - ROOM).argmin())
    yield f"at {thermal.temperatures[at]:.0f} K"
    yield f"  free energy      {1000 * thermal.free_energy[at]:.2f} meV/atom"
    yield f"  entropy          {thermal.entropy[at]:.2f} J/K per mole of atoms"
    yield f"  heat capacity    {thermal.heat_capacity[at]:.2f} J/K per mole of atoms"
    yield _describe(found.imaginary, found.imaginary_share) if found.imaginary else "no imaginary modes: stable"


def _describe(imaginary: Sequence[Mode], share: float) -> str:
    """Where the imaginary modes are, in one line."""
    first = imaginary[0]
    where = first.label or "q = ({:.3f}, {:.3f}, {:.3f})".format(*first.qpoint)
    others = " and ".join(dict.fromkeys(mode.label for mode in imaginary[1:] if mode.label != first.label))
    also = f", others at {others}" if others else ""
    return f"imaginary modes, lowest {-first.frequency:.2f}i THz at {where}{also}; {100 * share:.2g} % of the mesh"
