"""Phonons of four crystals: `phonons` against phonopy driven by stock chgnet in float64, on the same cores.

    python -m benchmarks.phonons --threads 2       writes results/phonons.json; a quarter of an hour, nearly all stock's
    python -m benchmarks.phonons --quick           small supercells, a minute or so, writes nothing

Both start from the same relaxed structure, supercell and displacement. Stock is driven as phonopy's manual has it, one
supercell after the other, by the fastest of its ways: predict_structure(task="ef"), which leaves out the stress and
the features that its ASE calculator computes besides; one supercell by that calculator is timed too. "forces" is the
time for all displaced supercells, "all" that from the relaxed structure to bands, densities of states and thermal
properties, phonopy's share included. The difference is the largest of any frequency along the path.
"""

import argparse
import time
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import read
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.core import Lattice, Structure
from rich.console import Console
from rich.table import Table

from ase_fastchgnet import FastCHGNet, Phonons, Prediction, phonons, relax
from benchmarks._report import write_result
from benchmarks.systems import LIMNO2
from tests.stock import quiet, stock_model, true_float64

MESH = 40.0  # Å, as phonons has it


class Timed(FastCHGNet):
    """FastCHGNet that remembers how long it has evaluated."""

    seconds = 0.0

    def evaluate(self, structures: Any, properties: Collection[str] = ("energy", "forces")) -> list[Prediction]:
        start = time.perf_counter()
        found = super().evaluate(structures, properties)
        self.seconds += time.perf_counter() - start
        return found


def crystals() -> dict[str, Atoms]:
    limno2 = read(LIMNO2)
    assert isinstance(limno2, Atoms)
    return {
        "Si": bulk("Si", "diamond", a=5.46),
        "NaCl": bulk("NaCl", "rocksalt", a=5.69),
        "MgO": bulk("MgO", "rocksalt", a=4.25),
        "LiMnO2": limno2,
    }


def stock_forces(displaced: Sequence[PhonopyAtoms]) -> list[np.ndarray]:
    """Forces (atoms, 3), eV/Å, of each supercell by stock in float64."""
    net = stock_model("0.3.0", "float64")
    with true_float64(), quiet():
        structures = (Structure(Lattice(cell.cell), cell.symbols, cell.scaled_positions) for cell in displaced)
        return [np.asarray(net.predict_structure(one, task="ef")["f"], float) for one in structures]


def stock_calculator_seconds(cell: PhonopyAtoms) -> float:
    """Time of one supercell by stock's ASE calculator in float64."""
    from chgnet.model.dynamics import CHGNetCalculator

    atoms = Atoms(cell.symbols, positions=cell.positions, cell=cell.cell, pbc=True)
    with true_float64(), quiet():
        atoms.calc = CHGNetCalculator(model=stock_model("0.3.0", "float64"), use_device="cpu")
        start = time.perf_counter()
        atoms.get_forces()
        return time.perf_counter() - start


def by_hand(found: Phonons[Atoms]) -> tuple[float, float, Phonopy]:
    """(seconds for the forces, seconds in all, phonons) of the same structure and supercell with stock's forces."""
    start = time.perf_counter()
    atoms = found.structure
    cell = PhonopyAtoms(symbols=list(atoms.symbols), cell=atoms.cell.array, positions=atoms.positions)
    theirs = Phonopy(
        cell,
        supercell_matrix=found.phonopy.supercell_matrix,
        primitive_matrix=found.phonopy.primitive_matrix,
    )
    theirs.generate_displacements(distance=0.01)
    before = time.perf_counter()
    theirs.forces = stock_forces(theirs.supercells_with_displacements)
    forces = time.perf_counter() - before
    theirs.produce_force_constants()
    theirs.symmetrize_force_constants()
    theirs.run_band_structure([band.qpoints for band in found.bands])
    theirs.run_mesh(MESH, with_eigenvectors=True, is_mesh_symmetry=False)
    frequencies = found.dos.frequencies
    theirs.run_projected_dos(
        freq_min=frequencies[0], freq_max=frequencies[-1], freq_pitch=frequencies[1] - frequencies[0]
    )
    theirs.run_thermal_properties(exclude_gamma_acoustic=True)
    return forces, time.perf_counter() - start, theirs


def measure(name: str, atoms: Atoms, thickness: float, dtype: str) -> dict[str, Any]:
    """One row of the result."""
    exact = FastCHGNet(dtype="float64")
    relaxed = relax(atoms, exact, fmax=1e-5, optimizer="LBFGS", fix_symmetry=True, progress=False).structure
    phonons(relaxed, Timed(dtype=dtype), relax=False, supercell=1.0, mesh=10, progress=False)  # imports, weights
    ours = Timed(dtype=dtype)
    start = time.perf_counter()
    found = phonons(relaxed, ours, relax=False, supercell=thickness, mesh=MESH, progress=False)
    ours_all = time.perf_counter() - start
    stock, stock_all, theirs = by_hand(found)
    pairs = zip(found.bands, theirs.band_structure.frequencies, strict=True)
    displaced = found.phonopy.supercells_with_displacements
    return {
        "system": name,
        "dtype": dtype,
        "atoms": len(displaced[0]),
        "supercells": len(displaced),
        "largest_difference_THz": max(float(np.abs(a.frequencies - b).max()) for a, b in pairs),
        "highest_THz": max(float(band.frequencies.max()) for band in found.bands),
        "lowest_THz": min(float(band.frequencies.min()) for band in found.bands),
        "ours_forces_s": ours.seconds,
        "stock_forces_s": stock,
        "stock_calculator_s": len(displaced) * stock_calculator_seconds(displaced[0]),
        "ratio_forces": stock / ours.seconds,
        "ours_all_s": ours_all,
        "stock_all_s": stock_all,
        "ratio_all": stock_all / ours_all,
    }


def table(rows: Sequence[dict[str, Any]], threads: int) -> Table:
    shown = Table(title=f"Phonons, CHGNet 0.3.0, stock in float64, {threads} threads")
    columns = ("system", "dtype", "supercells", "atoms", "difference THz", "forces: stock s", "its calculator s")
    for column in (*columns, "ours s", "ratio", "all: stock s", "ours s", "ratio"):
        shown.add_column(column, justify="left" if column in ("system", "dtype") else "right")
    for row in rows:
        shown.add_row(
            row["system"],
            row["dtype"],
            str(row["supercells"]),
            str(row["atoms"]),
            f"{row['largest_difference_THz']:.4f}",
            f"{row['stock_forces_s']:.2f}",
            f"{row['stock_calculator_s']:.2f}",
            f"{row['ours_forces_s']:.2f}",
            f"{row['ratio_forces']:.1f}×",
            f"{row['stock_all_s']:.2f}",
            f"{row['ours_all_s']:.2f}",
            f"{row['ratio_all']:.1f}×",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description="Phonons: FastCHGNet against phonopy driven by stock chgnet.")
    parser.add_argument("--quick", action="store_true", help="supercells 5 Å thick, nothing is written")
    parser.add_argument("--systems", nargs="+", choices=list(crystals()), default=list(crystals()))
    parser.add_argument("--dtypes", nargs="+", choices=["float64", "float32"], default=["float64"], help="of ours")
    parser.add_argument("--threads", type=int, help="torch threads (default torch's own choice)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console(width=None if Console().is_terminal else 160)
    rows = []
    for name in options.systems:
        for dtype in options.dtypes:
            with console.status(f"measuring {name}"):
                rows.append(measure(name, crystals()[name], 5.0 if options.quick else 12.0, dtype))
    console.print(table(rows, torch.get_num_threads()))
    if not options.quick:
        console.print(f"written: {write_result('phonons', rows)}")


if __name__ == "__main__":
    main()
