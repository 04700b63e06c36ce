"""Structures with their energies, forces, stress and magnetic moments: as a table, and in a file.

What is here takes Atoms that carry results, as `with_results` makes them.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .outputs import atomic, suffix_of

if TYPE_CHECKING:
    from ase import Atoms

Row = dict[str, Any]  # what a line of the CSV file says, under names with units
Add = Callable[["Atoms", Row], None]

# name in a row, the two lines of the heading, format
COLUMNS = (
    ("n_atoms", "atoms", "", "d"),
    ("energy_eV", "energy", "eV", "z.4f"),
    ("energy_eV_per_atom", "energy/atom", "eV", "z.4f"),
    ("max_force_eV_A", "max |F|", "eV/Å", "z.3f"),
    ("pressure_GPa", "pressure", "GPa", "z.2f"),
    ("magmom_muB", "moment", "μB", "z.2f"),
)


def row_of(name: str, atoms: "Atoms") -> Row:
    """The results in short; None for the pressure of what has no volume."""
    import numpy as np
    from ase.units import GPa

    results = atoms.calc.results
    stress = results.get("stress")
    sides = ("xx", "yy", "zz", "yz", "xz", "xy")
    return {
        "structure": name,
        "formula": atoms.get_chemical_formula(),
        "n_atoms": len(atoms),
        "energy_eV": results["energy"],
        "energy_eV_per_atom": results["energy"] / len(atoms),
        "max_force_eV_A": float(np.sqrt((results["forces"] ** 2).sum(axis=1).max())),
        "magmom_muB": results.get("magmom"),
        "volume_A3": None if stress is None else atoms.get_volume(),
        "pressure_GPa": None if stress is None else float(-stress[:3].mean() / GPa),
        **{f"stress_{side}_GPa": None if stress is None else float(stress[k] / GPa) for k, side in enumerate(sides)},
    }


def print_table(rows: Sequence[Row], columns: Sequence[tuple[str, str, str, str]] = COLUMNS) -> None:
    """The rows on standard output; the structure comes last, so that its name may have any length."""
    if not rows:
        return
    cells = [[*(_cell(row[name], form) for name, _, _, form in columns), str(row["structure"])] for row in rows]
    head = [[title for _, title, _, _ in columns] + ["structure"], [unit for _, _, unit, _ in columns] + [""]]
    widths = [max(map(len, column)) for column in zip(*head, *cells, strict=True)]
    for line in head + cells:
        numbers = [cell.rjust(width) for cell, width in zip(line[:-1], widths, strict=False)]
        print("  ".join([*numbers, line[-1]]).rstrip())


@contextmanager
def results_file(path: Path) -> Iterator[Add]:
    """A function that adds a structure with its row to the file, which appears when all are added, if there are any.

    The suffix of `path` is one of RESULT_SUFFIXES or ONE_STRUCTURE.
    """
    with atomic(path) as unfinished:
        n_added = 0
        with _WRITERS[suffix_of(path)](unfinished) as add:

            def counted(atoms: "Atoms", row: Row) -> None:
                nonlocal n_added
                add(atoms, row)
                n_added += 1

            yield counted
        if not n_added:
            unfinished.unlink(missing_ok=True)


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


@contextmanager
def _csv(path: Path) -> Iterator[Add]:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table: list[csv.DictWriter[str]] = []

        def add(atoms: "Atoms", row: Row) -> None:
            if not table:
                table.append(csv.DictWriter(file, row))
                table[0].writeheader()
            table[0].writerow(row)

        yield add


@contextmanager
def _json(path: Path) -> Iterator[Add]:
    with open(path, "w", encoding="utf-8") as file:
        before = ["[\n"]

        def add(atoms: "Atoms", row: Row) -> None:
            file.write(before[0] + json.dumps({**row, **_arrays(atoms)}))
            before[0] = ",\n"

        yield add
        file.write("\n]\n")


@contextmanager
def _extxyz(path: Path) -> Iterator[Add]:
    from ase.io import write

    with open(path, "w", encoding="utf-8") as file:

        def add(atoms: "Atoms", row: Row) -> None:
            write(file, _named(atoms, row), format="extxyz")

        yield add


@contextmanager
def _traj(path: Path) -> Iterator[Add]:
    from ase.io.trajectory import Trajectory

    with Trajectory(path, "w") as file:
        yield lambda atoms, row: file.write(_named(atoms, row))


def _one(format: str) -> Callable[[Path], AbstractContextManager[Add]]:
    """A file of this format holds one structure, and no results."""

    @contextmanager
    def writer(path: Path) -> Iterator[Add]:
        from ase.io import write

        yield lambda atoms, row: write(path, atoms, format=format)

    return writer


_WRITERS: Mapping[str, Callable[[Path], AbstractContextManager[Add]]] = {
    ".csv": _csv,
    ".json": _json,
    ".extxyz": _extxyz,
    ".xyz": _extxyz,
    ".traj": _traj,
    ".cif": _one("cif"),
    ".vasp": _one("vasp"),
}
RESULT_SUFFIXES = (".csv", ".json", ".extxyz", ".xyz", ".traj")
ONE_STRUCTURE = (".cif", ".vasp")


def _named(atoms: "Atoms", row: Row) -> "Atoms":
    named = atoms.copy()
    named.calc = atoms.calc
    named.info["structure"] = row["structure"]
    return named  # type: ignore[no-any-return]


def _arrays(atoms: "Atoms") -> Row:
    """The structure and its results atom by atom, JSON-ready."""
    results = atoms.calc.results
    names = {"energies": "energies_eV", "forces": "forces_eV_A", "stress": "stress_eV_A3", "magmoms": "magmoms_muB"}
    return {
        "symbols": list(atoms.symbols),
        "pbc": atoms.pbc.tolist(),
        "cell_A": atoms.cell.tolist(),
        "positions_A": atoms.positions.tolist(),
        **{ours: results[name].tolist() for name, ours in names.items() if name in results},
    }
