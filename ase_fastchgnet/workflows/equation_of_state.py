"""eos: equilibrium volume and bulk modulus of a crystal from its energy at several volumes."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, get_args

import ase.eos
import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.optimize.optimize import Optimizer

from ase_fastchgnet.calculator import FastCHGNet
from ase_fastchgnet.evaluation.prediction import Array
from ase_fastchgnet.figures import BLUE, new_figure
from ase_fastchgnet.workflows.minima import crystal_at_minimum, deformed, evaluated, ions_at_minimum
from ase_fastchgnet.workflows.structures import StructureT, as_atoms, as_given

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["birchmurnaghan", "vinet", "murnaghan", "birch", "pouriertarantola"]

FILES = ("eos.json", "eos.csv", "eos.png", "structure.extxyz")  # of EquationOfState.write
MIN_POINTS = 5  # four parameters are fitted


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EquationOfState(Generic[StructureT]):
    """Energy against volume, all of the cell that was given, and what a fit makes of it."""

    structure: StructureT  # the minimum it started from, of the kind that was given; Atoms carry their results
    frames: list[Atoms]  # the crystal at each volume, with its results, smallest first
    volumes: Array  # (n,) Å³
    energies: Array  # (n,) eV
    kind: Kind  # the equation that was fitted
    volume: float  # Å³, where the fit has its minimum
    energy: float  # eV, there
    bulk_modulus: float  # GPa, there
    bulk_modulus_derivative: float  # with respect to pressure, no unit
    residual: float  # eV/atom, root mean square of what the fit leaves

    def energy_at(self, volumes: Array | float) -> Array:
        """Energy (eV) of the fit at volumes (Å³) of the cell."""
        parameters = (self.energy, self.bulk_modulus * units.GPa, self.bulk_modulus_derivative, self.volume)
        return np.asarray(getattr(ase.eos, self.kind)(np.asarray(volumes), *parameters), float)

    def plot(self) -> "tuple[Figure, Axes]":
        """Energies above the minimum and the fit, per atom, against volume per atom."""
        figure, axes = new_figure()
        n = len(self.frames[0])
        volumes = np.linspace(self.volumes[0], self.volumes[-1], 200)
        axes.plot(volumes / n, 1000 * (self.energy_at(volumes) - self.energy) / n, color=BLUE, lw=1.2)
        axes.plot(self.volumes / n, 1000 * (self.energies - self.energy) / n, "o", ms=5, mfc="white", color=BLUE)
        axes.axvline(self.volume / n, color="0.6", lw=0.8, ls=":")
        axes.set(xlabel="volume (Å³/atom)", ylabel="energy above the minimum (meV/atom)")
        axes.set_title(
            f"{self.frames[0].get_chemical_formula()}: $B_0$ = {self.bulk_modulus:.1f} GPa, {self.kind}", fontsize=10
        )
        return figure, axes

    def write(self, folder: str | Path) -> list[Path]:
        """Write the fit, the points, the figure and the structure to a folder; the paths are returned."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        fit, points, figure, structure = paths = [folder / name for name in FILES]
        fit.write_text(json.dumps(self._parameters(), indent=1) + "\n", encoding="utf-8")
        with open(points, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(self._points())
        self.plot()[0].savefig(figure, dpi=150)
        ase.io.write(structure, as_atoms(self.structure))
        return paths

    def __str__(self) -> str:
        n = len(self.frames[0])
        lines = [
            f"{self.frames[0].get_chemical_formula()}, {self.kind} through {len(self.frames)} volumes",
            f"volume        {self.volume:10.3f} Å³        {self.volume / n:10.4f} Å³/atom",
            f"energy        {self.energy:10.4f} eV        {self.energy / n:10.4f} eV/atom",
            f"bulk modulus  {self.bulk_modulus:10.2f} GPa",
            f"derivative    {self.bulk_modulus_derivative:10.2f}",
            f"residual      {1000 * self.residual:10.3f} meV/atom",
        ]
        return "\n".join(lines)

    def _parameters(self) -> dict[str, Any]:
        return {
            "formula": self.frames[0].get_chemical_formula(),
            "kind": self.kind,
            "volume_A3": self.volume,
            "energy_eV": self.energy,
            "bulk_modulus_GPa": self.bulk_modulus,
            "bulk_modulus_derivative": self.bulk_modulus_derivative,
            "residual_eV_per_atom": self.residual,
        }

    def _points(self) -> Iterator[list[Any]]:
        yield ["volume_A3", "energy_eV", "fit_eV"]
        yield from np.round([self.volumes, self.energies, self.energy_at(self.volumes)], 8).T.tolist()


def eos(
    structure: StructureT,
    calculator: Calculator | None = None,
    *,
    relax: bool = True,
    relax_ions: bool = True,
    max_strain: float = 0.03,
    points: int = 11,
    kind: Kind = "birchmurnaghan",
    fmax: float = 0.01,
    optimizer: str | type[Optimizer] = "LBFGS",
    progress: bool | None = None,
) -> EquationOfState[StructureT]:
    """The equation of state of a crystal (ase.Atoms or pymatgen Structure) of constant shape.

    calculator  any ASE calculator; None: FastCHGNet()
    relax       relax atoms and cell first; if False, the structure is taken as it is
    relax_ions  relax the atoms at each volume
    max_strain  the lattice vectors become longer and shorter by up to this share
    points      number of volumes, from the smallest to the largest
    kind        which equation, of those in ase.eos
    fmax        eV/Å, of all relaxations
    optimizer   as in `relax`, of all relaxations
    progress    draw bars; None: on a terminal

    ValueError if the structure is no crystal or if the minimum is not among the volumes, RelaxationError if a
    relaxation does not converge.
    """
    _check(kind, points, max_strain)
    calculator = calculator or FastCHGNet()
    start = crystal_at_minimum(
        as_atoms(structure), calculator, relaxed=not relax, fmax=fmax, optimizer=optimizer, progress=progress
    )
    strains = np.linspace(-max_strain, max_strain, points)
    frames = [deformed(start, (1 + strain) * np.eye(3)) for strain in strains]
    if relax_ions:
        frames = ions_at_minimum(frames, calculator, fmax=fmax, optimizer=optimizer, progress=progress)
    else:
        frames = evaluated(frames, calculator)
    return _fitted(as_given(start, structure), frames, kind)


def _fitted(structure: StructureT, frames: list[Atoms], kind: Kind) -> EquationOfState[StructureT]:
    volumes = np.array([atoms.get_volume() for atoms in frames])
    energies = np.array([atoms.get_potential_energy() for atoms in frames])
    _require_minimum(volumes, volumes[energies.argmin()])
    lowest = float(energies.min())  # what is fitted is small beside it, and would be lost in its rounding
    fit = ase.eos.EquationOfState(volumes, energies - lowest, eos=kind)
    fit.fit(warn=False)
    height, modulus, derivative, volume = map(float, fit.eos_parameters)
    _require_minimum(volumes, volume)
    left = energies - lowest - getattr(ase.eos, kind)(volumes, height, modulus, derivative, volume)
    return EquationOfState(
        structure=structure,
        frames=frames,
        volumes=volumes,
        energies=energies,
        kind=kind,
        volume=volume,
        energy=lowest + height,
        bulk_modulus=modulus / units.GPa,
        bulk_modulus_derivative=derivative,
        residual=float(np.sqrt(np.mean(left**2))) / len(frames[0]),
    )


def _require_minimum(volumes: Array, found: float) -> None:
    if not volumes[0] < found < volumes[-1]:
        raise ValueError(
            f"the energy has no minimum between {volumes[0]:.2f} and {volumes[-1]:.2f} Å³, but at {found:.2f} Å³ or "
            "beyond; relax the structure first (relax=True), or raise max_strain"
        )


def _check(kind: str, points: int, max_strain: float) -> None:
    if kind not in get_args(Kind):
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(map(repr, get_args(Kind)))}")
    if points < MIN_POINTS:
        raise ValueError(f"points={points}: expected {MIN_POINTS} or more, for a fit of four parameters")
    if not 0 < max_strain < 0.5:
        raise ValueError(f"max_strain={max_strain}: expected a share of the length between 0 and 0.5, such as 0.03")
