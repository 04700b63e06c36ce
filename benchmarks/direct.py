"""Direct forces against exact ones: how far they are, and how much faster.

    python -m benchmarks.direct                          writes results/direct.json
    python -m benchmarks.direct --frames set.extxyz.xz   DFT-labelled frames other than those of benchmarks/data

Structures are of formulas that the readout was not taught (`scripts/direct_readout/sample.py`); the truth is stock
chgnet 0.3.0 in float64. Frames of MPtrj have DFT forces: there the errors of exact and direct forces stand side by
side.
"""

import argparse
import lzma
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ase_fastchgnet import FastCHGNet, evaluate
from benchmarks._report import write_result
from benchmarks.systems import SYSTEMS
from tests.stock import GPA, as_stock, stock_predict

DATA = Path(__file__).parent / "data"
SPEED = ("LiMnO2-8", "LiMnO2-64", "LiMnO2-512", "Si-512", "MgO-512", "Cu-500")
QUANTITIES = {"forces": (1000, "meV/Å"), "energy": (1000, "meV/atom"), "stress": (GPA, "GPa"), "magmoms": (1, "μ_B")}


def frames_of(path: Path) -> list[Atoms]:
    """All structures of an .extxyz.xz file."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        found = ase.io.read(file, ":", format="extxyz")
    assert isinstance(found, list)
    return found


def against_stock(structures: Sequence[Atoms], console: Console) -> list[dict[str, Any]]:
    """Mean absolute errors of each kind of structure and of all; the mean of what is predicted beside them."""
    found = evaluate(structures, dtype="float64", forces="direct", on_isolated_atoms="ignore")
    off: dict[tuple[str, str], list[np.ndarray]] = {}
    size: dict[tuple[str, str], list[np.ndarray]] = {}
    for atoms, prediction in zip(track(structures, "stock", console=console, transient=True), found, strict=True):
        exact, ours = stock_predict(atoms, "0.3.0", "float64"), as_stock(prediction)
        for quantity in QUANTITIES:
            scale = 1 / len(atoms) if quantity == "energy" else 1.0
            for kind in (atoms.info["kind"], "all"):
                difference = scale * np.ravel(np.abs(np.subtract(ours[quantity], exact[quantity])))
                off.setdefault((kind, quantity), []).append(difference)
                size.setdefault((kind, quantity), []).append(scale * np.abs(np.ravel(exact[quantity])))
    rows = []
    for (kind, quantity), values in off.items():
        factor, unit = QUANTITIES[quantity]
        rows.append(
            {
                "part": "unseen crystals", "kind": kind, "quantity": quantity, "unit": unit, "structures": len(values),
                "mae": factor * float(np.concatenate(values).mean()),
                "mean_absolute_value": factor * float(np.concatenate(size[kind, quantity]).mean()),
            }
        )  # fmt: skip
    return rows


def against_dft(frames: Sequence[Atoms], name: str) -> dict[str, Any]:
    """Mean absolute errors of forces from DFT, of exact and of direct forces."""
    truth = np.concatenate([atoms.get_forces() for atoms in frames])
    errors = {}
    for forces in ("conservative", "direct"):
        found = evaluate(frames, forces=forces, on_isolated_atoms="ignore")
        errors[forces] = 1000 * float(np.abs(np.concatenate([p.forces for p in found]) - truth).mean())
    ratio = errors["direct"] / errors["conservative"]
    return {"part": "DFT", "frames": name, "structures": len(frames), "unit": "meV/Å", **errors, "ratio": ratio}


def speed(name: str, rounds: int) -> dict[str, Any]:
    """Median milliseconds of energy, forces and stress at a new geometry each time, exact and direct in turn."""
    atoms = SYSTEMS[name]()
    times: dict[str, list[float]] = {"conservative": [], "direct": []}
    calculators = {forces: FastCHGNet(forces=forces) for forces in times}  # type: ignore[arg-type]
    for round_ in range(rounds + 1):
        atoms.rattle(1e-3, seed=round_)
        for forces, calculator in calculators.items():
            start = time.perf_counter()
            calculator.calculate(atoms, ["energy", "forces", "stress"])
            if round_ > 0:  # the first one loads weights and builds graphs
                times[forces].append(1000 * (time.perf_counter() - start))
    medians = {forces: statistics.median(values) for forces, values in times.items()}
    return {
        "part": "speed",
        "system": name,
        "unit": "ms",
        **medians,
        "ratio": medians["conservative"] / medians["direct"],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, default=DATA / "mptrj_64.extxyz.xz", help="DFT-labelled, .extxyz.xz")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    console = Console()
    rows = [speed(name, given.rounds) for name in SPEED]
    rows += against_stock(frames_of(DATA / "mp_perturbed_300.extxyz.xz"), console)
    rows.append(against_dft(frames_of(given.frames), given.frames.name))
    for part in ("speed", "unseen crystals", "DFT"):
        mine = [row for row in rows if row["part"] == part]
        table = Table(*(key for key in mine[0] if key != "part"), title=part)
        for row in mine:
            table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items() if k != "part"))
        console.print(table)
    console.print(f"written to {write_result('direct', rows)}")


if __name__ == "__main__":
    main()
