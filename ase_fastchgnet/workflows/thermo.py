"""The log of molecular dynamics: temperature, energies, pressure and volume against time."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units

from ase_fastchgnet.figures import BLUE, GREEN, ORANGE, RED, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = {  # in a file: in a Thermo
    "step": "step",
    "time_fs": "time",
    "temperature_K": "temperature",
    "potential_eV": "potential",
    "kinetic_eV": "kinetic",
    "conserved_eV": "conserved",
    "pressure_GPa": "pressure",
    "volume_A3": "volume",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Thermo:
    """Arrays with a value for every logged step."""

    step: np.ndarray
    time: np.ndarray  # fs
    temperature: np.ndarray  # K, of 3 N degrees of freedom less those that constraints remove
    potential: np.ndarray  # eV, of the whole structure as the next two
    kinetic: np.ndarray  # eV
    conserved: np.ndarray | None  # eV, what stays constant but for errors of integration; None if the ensemble has none
    pressure: np.ndarray | None  # GPa, motion of the atoms included; None without a periodic cell
    volume: np.ndarray | None  # Å³; None if it is constant

    @classmethod
    def from_rows(cls, columns: Sequence[str], rows: Sequence[Sequence[float]]) -> "Thermo":
        """From rows of numbers under the names that they have in a file."""
        table = np.array(rows, dtype=float).reshape(-1, len(columns))
        values: dict[str, Any] = dict.fromkeys(COLUMNS.values())
        values.update((COLUMNS[name], table[:, k]) for k, name in enumerate(columns))
        values["step"] = values["step"].astype(int)
        return cls(**values)

    @classmethod
    def read(cls, path: str | Path) -> "Thermo":
        """From the thermo.csv of a run."""
        with open(path, newline="") as file:
            columns, *rows = csv.reader(file)
        return cls.from_rows(columns, [[float(value) for value in row] for row in rows])

    def after(self, time: float) -> "Thermo":
        """What was logged at `time` (fs) and later."""
        kept = self.time >= time
        values: dict[str, Any] = {name: getattr(self, name) for name in COLUMNS.values()}
        for name, value in values.items():
            values[name] = None if value is None else value[kept]
        return Thermo(**values)

    def drift(self) -> float:
        """Slope of the conserved energy against time, eV/ps.  ValueError if there is none, or fewer than two rows."""
        if self.conserved is None or len(self.time) < 2:
            raise ValueError("drift needs an ensemble with a conserved energy, and two rows at least")
        return float(np.polyfit(self.time / 1000, self.conserved - self.conserved[0], 1)[0])

    def plot(self) -> "tuple[Figure, Any]":
        """Figure and axes: temperature, energies and, where they are logged, pressure and volume."""
        extra = [(self.pressure, "pressure (GPa)"), (self.volume, "volume (Å³)")]
        extra = [(values, label) for values, label in extra if values is not None]
        panels = 2 + len(extra)
        figure, axes = new_figure(7, 2.4 * panels, nrows=panels, sharex=True)
        time = self.time / 1000
        axes[0].plot(time, self.temperature, color=RED, lw=1)
        axes[0].set(ylabel="temperature (K)")
        lines = [("potential", self.potential), ("potential + kinetic", self.potential + self.kinetic)]
        if self.conserved is not None:
            lines.append(("conserved", self.conserved))
        for (label, energy), color in zip(lines, (BLUE, ORANGE, "black"), strict=False):
            axes[1].plot(time, energy - self.potential[0], color=color, lw=1, label=label)
        axes[1].set(ylabel="energy above\nthe start (eV)")
        axes[1].legend(frameon=False, fontsize=9, ncols=3)
        for axis, (values, label) in zip(axes[2:], extra, strict=True):
            axis.plot(time, values, color=GREEN, lw=1)
            axis.set(ylabel=label)
        axes[-1].set(xlabel="time (ps)")
        axes[-1].set_xlim(time[0], time[-1] if time[-1] > time[0] else None)
        return figure, axes


def columns_of(atoms: Atoms, *, conserved: bool, cell_moves: bool) -> list[str]:
    """The columns of a run's log."""
    periodic = bool(atoms.pbc.all()) and atoms.cell.rank == 3
    stress = periodic and "stress" in atoms.calc.implemented_properties
    left_out = {"conserved_eV": not conserved, "pressure_GPa": not stress, "volume_A3": not cell_moves}
    return [name for name in COLUMNS if not left_out.get(name, False)]


def observe(atoms: Atoms, columns: Sequence[str], *, step: int, time: float, bath: float) -> list[float]:
    """A row of the log; `bath` (eV) makes potential + kinetic energy the conserved one."""
    potential, kinetic = float(atoms.get_potential_energy()), float(atoms.get_kinetic_energy())
    row = {
        "step": step,
        "time_fs": time,
        "temperature_K": float(atoms.get_temperature()),
        "potential_eV": potential,
        "kinetic_eV": kinetic,
        "conserved_eV": potential + kinetic + bath,
    }
    if "pressure_GPa" in columns:
        stress = atoms.get_stress(include_ideal_gas=True)
        row["pressure_GPa"] = -float(stress[:3].mean()) / units.GPa
    if "volume_A3" in columns:
        row["volume_A3"] = float(atoms.cell.volume)
    return [row[name] for name in columns]
