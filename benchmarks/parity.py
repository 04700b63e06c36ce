"""How far FastCHGNet is from stock chgnet, in float64 and in float32, with stock's own float32 noise beside it.

    python -m benchmarks.parity                                 writes results/parity.json
    python -m benchmarks.parity --frames set.extxyz --limit 40  a file that ASE reads besides the test structures

Stock in float64 is the truth (see tests/stock.py for what that takes). A structure counts with its worst component;
the table shows the worst and the median structure.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ase_fastchgnet import evaluate
from benchmarks._report import write_result
from tests.stock import as_stock, stock_predict, worst_differences
from tests.structures import STRUCTURES

MODELS = ("0.3.0", "0.2.0", "r2scan")
UNITS = {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³", "magmoms": "μ_B"}
PAIRS = ("ours float64", "ours float32", "stock float32")


def measure(model: str, name: str, structures: Sequence[Atoms], console: Console) -> list[dict[str, Any]]:
    """Rows of one checkpoint on one set: a pair of calculations and a quantity each."""
    ours = {
        dtype: evaluate(structures, model, dtype=dtype, on_isolated_atoms="ignore") for dtype in ("float64", "float32")
    }
    differences: dict[str, list[Mapping[str, float]]] = {pair: [] for pair in PAIRS}
    for i, atoms in enumerate(track(structures, f"{model} on {name}", console=console, transient=True)):
        found = as_stock(ours["float64"][i])
        # All pairs on the same ground: stock has a stress for molecules too.
        exact = {key: value for key, value in stock_predict(atoms, model, "float64").items() if key in found}
        differences["ours float64"].append(worst_differences(found, exact))
        differences["ours float32"].append(worst_differences(as_stock(ours["float32"][i]), exact))
        differences["stock float32"].append(worst_differences(stock_predict(atoms, model, "float32"), exact))
    rows = []
    for quantity, unit in UNITS.items():
        for pair in PAIRS:
            errors = [d[quantity] for d in differences[pair] if quantity in d]
            size = {"worst": max(errors), "median": statistics.median(errors), "structures": len(errors)}
            rows.append({"model": model, "set": name, "pair": pair, "quantity": quantity, "unit": unit, **size})
    return rows


def frames(path: Path, limit: int) -> list[Atoms]:
    """`limit` structures spread evenly over a file."""
    read_all = read(path, ":")
    assert isinstance(read_all, list)
    wanted = np.unique(np.linspace(0, len(read_all) - 1, min(limit, len(read_all))).round().astype(int))
    return [read_all[i] for i in wanted]


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = Table(title="Distance to stock chgnet in float64: worst structure (median structure)")
    for column in ("model", "set", "structures", "quantity", *PAIRS):
        shown.add_column(column, justify="right" if column in (*PAIRS, "structures") else "left")
    cells = {(r["model"], r["set"], r["quantity"], r["pair"]): f"{r['worst']:.1e} ({r['median']:.1e})" for r in rows}
    for r in rows:
        if r["pair"] == PAIRS[0]:
            key = (r["model"], r["set"], r["quantity"])
            label = f"{r['quantity']} {r['unit']}"
            shown.add_row(r["model"], r["set"], str(r["structures"]), label, *(cells[(*key, pair)] for pair in PAIRS))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description="Distance of FastCHGNet from stock chgnet.")
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--frames", nargs="+", type=Path, default=[], metavar="FILE", help="files of real structures")
    parser.add_argument("--limit", type=int, default=40, help="structures taken from each file (default 40)")
    parser.add_argument("--quick", action="store_true", help="0.3.0 on ten structures, nothing is written")
    options = parser.parse_args()
    ours = list(STRUCTURES.values())
    sets = {"test structures": ours[:10] if options.quick else ours}
    for path in options.frames:
        sets[path.name.partition(".")[0]] = frames(path, options.limit)
    console = Console(width=None if Console().is_terminal else 160)
    rows = []
    for model in ("0.3.0",) if options.quick else options.models:
        for name, structures in sets.items():
            rows += measure(model, name, structures, console)
    console.print(table(rows))
    if not options.quick:
        console.print(f"written: {write_result('parity', rows)}")


if __name__ == "__main__":
    main()
