"""Phonons of four crystals: `phonons` against phonopy driven by stock chgnet in float64, on the same cores.

    python -m benchmarks.phonons --threads 2       writes results/phonons.json; a quarter of an hour, nearly all stock's
    python -m benchmarks.phonons --quick           small supercells, a minute or so, writes nothing

Both start from the same relaxed structure, supercell and displacement. Stock is driven as phonopy's manual has it, one
supercell after the other, by the faster of its ways: predict_structure(task="ef"), which leaves out the stress and the
features that its ASE calculator computes besides; that one is timed too, on one of the supercells. "forces" is the time
for all displaced supercells; samples of the two alternate, and the ratio is the median of those of neighbouring
samples. "all" adds what phonopy needs, the same for both: from the relaxed structure to bands, densities of states and
thermal properties. The difference is the largest of any frequency along the path.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
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

from ase_fastchgnet import FastCHGNet, Phonons, phonons, relax
from benchmarks._report import write_result
from benchmarks.systems import LIMNO2
from tests.stock import quiet, stock_model, true_float64


def crystals() -> dict[str, Atoms]:
    limno2 = read(LIMNO2)
    assert isinstance(limno2, Atoms)
    return {
        "Si": bulk("Si", "diamond", a=5.46),
        "NaCl": bulk("NaCl", "rocksalt", a=5.69),
        "MgO": bulk("MgO", "rocksalt", a=4.25),
        "LiMnO2": limno2,
    }


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def stock_forces(displaced: Sequence[PhonopyAtoms]) -> list[np.ndarray]:
    """Forces (atoms, 3), eV/Å, of each supercell by stock in float64."""
    net = stock_model("0.3.0", "float64")
    with true_float64(), quiet():
        structures = (Structure(Lattice(cell.cell), cell.symbols, cell.scaled_positions) for cell in displaced)
        return [np.asarray(net.predict_structure(one, task="ef")["f"], float) for one in structures]


def stock_calculator_forces(cell: PhonopyAtoms) -> np.ndarray:
    """The same of one supercell by stock's ASE calculator."""
    from chgnet.model.dynamics import CHGNetCalculator

    atoms = as_ase(cell)
    with true_float64(), quiet():
        atoms.calc = CHGNetCalculator(model=stock_model("0.3.0", "float64"), use_device="cpu")
        return np.asarray(atoms.get_forces())


def as_ase(cell: PhonopyAtoms) -> Atoms:
    return Atoms(cell.symbols, positions=cell.positions, cell=cell.cell, pbc=True)


def by_hand(found: Phonons[Atoms]) -> list[np.ndarray]:
    """Frequencies (q, modes) of each piece of the path, of the same structure and supercell with stock's forces."""
    atoms = found.structure
    cell = PhonopyAtoms(symbols=list(atoms.symbols), cell=atoms.cell.array, positions=atoms.positions)
    matrices = {name: getattr(found.phonopy, name) for name in ("supercell_matrix", "primitive_matrix")}
    theirs = Phonopy(cell, **matrices)
    theirs.generate_displacements(distance=0.01)
    theirs.forces = stock_forces(theirs.supercells_with_displacements)
    theirs.produce_force_constants()
    theirs.symmetrize_force_constants()
    frequencies: list[np.ndarray] = theirs.run_band_structure([band.qpoints for band in found.bands]).frequencies
    return frequencies


def measure(name: str, atoms: Atoms, thickness: float, dtype: str, repeat: int) -> dict[str, Any]:
    """One row of the result."""
    exact = FastCHGNet(dtype="float64")
    relaxed = relax(atoms, exact, fmax=1e-5, optimizer="LBFGS", fix_symmetry=True, progress=False).structure
    calculator = FastCHGNet(dtype=dtype)

    def compute(supercell: float) -> Phonons[Atoms]:
        return phonons(relaxed, calculator, relax=False, supercell=supercell, progress=False)

    stock_forces(compute(1.0).phonopy.supercells_with_displacements[:1])  # imports and weights do not count
    start = time.perf_counter()
    found = compute(thickness)
    ours_all = time.perf_counter() - start
    pairs = zip(found.bands, by_hand(found), strict=True)
    displaced = found.phonopy.supercells_with_displacements
    ours, stock = [], []
    for _ in range(repeat):
        ours.append(seconds(lambda: calculator.evaluate([as_ase(cell) for cell in displaced], ("forces",))))
        stock.append(seconds(lambda: stock_forces(displaced)))
    ours_s, stock_s = statistics.median(ours), statistics.median(stock)
    phonopy_s = max(0.0, ours_all - ours_s)
    return {
        "system": name,
        "dtype": dtype,
        "atoms": len(displaced[0]),
        "supercells": len(displaced),
        "largest_difference_THz": max(float(np.abs(a.frequencies - b).max()) for a, b in pairs),
        "highest_THz": max(float(band.frequencies.max()) for band in found.bands),
        "lowest_THz": min(float(band.frequencies.min()) for band in found.bands),
        "ours_forces_s": ours_s,
        "stock_forces_s": stock_s,
        "stock_calculator_s": len(displaced) * seconds(lambda: stock_calculator_forces(displaced[0])),
        "ratio_forces": statistics.median(s / f for s, f in zip(stock, ours, strict=True)),
        "phonopy_s": phonopy_s,
        "ratio_all": (stock_s + phonopy_s) / (ours_s + phonopy_s),
        "samples_s": {"ours": ours, "stock": stock},
    }


def table(rows: Sequence[dict[str, Any]], threads: int) -> Table:
    shown = Table(title=f"Phonons, CHGNet 0.3.0, stock in float64, {threads} threads")
    columns = ("system", "dtype", "supercells", "atoms", "difference THz", "forces: stock s", "its calculator s")
    for column in (*columns, "ours s", "ratio", "phonopy s", "all: ratio"):
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
            f"{row['phonopy_s']:.2f}",
            f"{row['ratio_all']:.1f}×",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description="Phonons: FastCHGNet against phonopy driven by stock chgnet.")
    parser.add_argument("--quick", action="store_true", help="supercells 5 Å thick, nothing is written")
    parser.add_argument("--systems", nargs="+", choices=list(crystals()), default=list(crystals()))
    parser.add_argument("--dtypes", nargs="+", choices=["float64", "float32"], default=["float64"], help="of ours")
    parser.add_argument("--threads", type=int, help="torch threads (default torch's own choice)")
    parser.add_argument("--repeat", type=int, default=3, help="samples of the forces of each (default 3)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console(width=None if Console().is_terminal else 160)
    rows = []
    for name in options.systems:
        for dtype in options.dtypes:
            with console.status(f"measuring {name}"):
                rows.append(measure(name, crystals()[name], 5.0 if options.quick else 12.0, dtype, options.repeat))
    console.print(table(rows, torch.get_num_threads()))
    if not options.quick:
        console.print(f"written: {write_result('phonons', rows)}")


if __name__ == "__main__":
    main()
