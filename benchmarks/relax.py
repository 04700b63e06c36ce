"""Relaxing many small crystals: relax_many, relax one by one, and stock chgnet's StructOptimizer, in one run.

    python -m benchmarks.relax              64 crystals, three rounds, writes results/relax.json
    python -m benchmarks.relax --quick      8 crystals, one round, writes nothing

The crystals are those of the tests with at most 16 atoms, each rattled by its own seed, until there are 64.  All three
use FIRE, ASE's FrechetCellFilter, fmax = 0.05 eV/Å and at most 100 steps, in float32 with the 0.3.0 weights, and
rounds of the three alternate.
"""

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io import read
from rich.console import Console
from rich.table import Table

from ase_fastchgnet import FastCHGNet, Relaxation, relax, relax_many
from benchmarks._report import write_result
from benchmarks.stock import stock_calculator

CRYSTALS = Path(__file__).parents[1] / "tests" / "data" / "structures.extxyz"
MAX_ATOMS = 16
RATTLE = 0.05  # Å
FMAX, STEPS = 0.05, 100
TWO = "relax_many, two workers"


def crystals(count: int) -> list[Atoms]:
    """`count` rattled crystals, round after round of the file."""
    small = [Atoms(frame) for frame in read(CRYSTALS, ":") if len(frame) <= MAX_ATOMS]
    structures = []
    for number in range(count):
        atoms = small[number % len(small)].copy()
        atoms.rattle(RATTLE, seed=number)
        structures.append(atoms)
    return structures


def one_by_one(structures: Sequence[Atoms]) -> list[tuple[float, int]]:
    """Energy and number of steps of each structure by `relax`."""
    calculator = FastCHGNet()
    results = [relax(atoms, calculator, fmax=FMAX, steps=STEPS, progress=False) for atoms in structures]
    return [(result.energy, result.n_steps) for result in results]


def together(structures: Sequence[Atoms], devices: int | None = None) -> list[tuple[float, int]]:
    """The same by `relax_many`."""
    results = relax_many(structures, FastCHGNet(), devices=devices, fmax=FMAX, steps=STEPS, progress=False)
    return [(result.energy, result.n_steps) for result in results if isinstance(result, Relaxation)]


def stock(structures: Sequence[Atoms], calculator: Calculator) -> list[tuple[float, int]]:
    """The same by chgnet's StructOptimizer."""
    from chgnet.model.dynamics import StructOptimizer

    optimizer = StructOptimizer(calculator)
    found = []
    for atoms in structures:
        with contextlib.redirect_stdout(io.StringIO()):
            result = optimizer.relax(atoms.copy(), fmax=FMAX, steps=STEPS, verbose=False)
        energies = result["trajectory"].energies
        found.append((float(energies[-1]), len(energies) - 2))  # the first and, once more, the last are no steps
    return found


def measure(structures: Sequence[Atoms], rounds: int) -> dict[str, Any]:
    """The row of the result."""
    calculator = stock_calculator()
    ways: dict[str, Callable[[], list[tuple[float, int]]]] = {
        "relax_many": lambda: together(structures),
        TWO: lambda: together(structures, devices=2),
        "relax": lambda: one_by_one(structures),
        "stock": lambda: stock(structures, calculator),
    }
    for warm_up in (together, one_by_one):
        warm_up(structures[:2])
    stock(structures[:1], calculator)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[tuple[float, int]]] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            found[name] = way()
            seconds[name].append(time.perf_counter() - start)
    sizes = np.array([len(atoms) for atoms in structures])
    energies = {name: np.array([energy for energy, _ in values]) / sizes for name, values in found.items()}
    return {
        "structures": len(structures),
        "atoms": int(sizes.sum()),
        "steps": {name: sum(steps for _, steps in values) for name, values in found.items()},
        "seconds": seconds,
        "ratio_to_relax": ratio(seconds["relax"], seconds["relax_many"]),
        "ratio_to_stock": ratio(seconds["stock"], seconds["relax_many"]),
        "ratio_of_two_workers_to_stock": ratio(seconds["stock"], seconds[TWO]),
        "largest_difference_to_relax_eV_per_atom": max(
            float(np.abs(energies[way] - energies["relax"]).max()) for way in ("relax_many", TWO)
        ),
        "median_difference_to_stock_eV_per_atom": float(np.median(np.abs(energies["relax_many"] - energies["stock"]))),
        "largest_difference_to_stock_eV_per_atom": float(np.abs(energies["relax_many"] - energies["stock"]).max()),
    }


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median of the ratios of the same round."""
    return statistics.median(s / f for s, f in zip(slow, fast, strict=True))


def table(row: dict[str, Any]) -> Table:
    shown = Table(
        title=f"{row['structures']} crystals, {row['atoms']} atoms, {torch.get_num_threads()} threads",
        caption=f"relax_many and relax differ by {row['largest_difference_to_relax_eV_per_atom']:.1e} eV/atom at most",
    )
    for column in ("", "seconds", "steps", "ms per step", "relax_many is faster by"):
        shown.add_column(column, justify="right" if column else "left")
    for name, samples in row["seconds"].items():
        median, steps = statistics.median(samples), row["steps"][name] + row["structures"]
        faster = ratio(samples, row["seconds"]["relax_many"])
        shown.add_row(name, f"{median:.1f}", str(row["steps"][name]), f"{1e3 * median / steps:.1f}", f"{faster:.2f}×")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description="relax_many against relax one by one and stock's StructOptimizer.")
    parser.add_argument("--quick", action="store_true", help="8 crystals, one round, nothing is written")
    parser.add_argument("--rounds", type=int, help="how often each is timed (default 3, quick 1)")
    parser.add_argument("--threads", type=int, help="torch threads (default torch's own choice)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    row = measure(crystals(8 if options.quick else 64), options.rounds or (1 if options.quick else 3))
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table(row))
    if not options.quick:
        console.print(f"written: {write_result('relax', [row])}")


if __name__ == "__main__":
    main()
