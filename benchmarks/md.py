"""Time of an MD step through ASE, FastCHGNet against stock chgnet on the same weights and machine, pair by pair.

    python -m benchmarks.md              writes results/md.json
    python -m benchmarks.md --quick      three systems, within a minute, writes nothing

Samples of the two alternate, so that a busy moment of the machine hits both; the ratio is the median of the ratios of
neighbouring samples. Stock computes stress and magnetic moments at every step whether asked or not; ours does so in
the column "all", where both are asked for at every step.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from ase import Atoms
from rich.console import Console
from rich.table import Table

from ase_fastchgnet import FastCHGNet
from ase_fastchgnet.graph import Cutoffs, build_batch
from benchmarks._report import write_result
from benchmarks._trajectory import Trajectory, begin, ratio
from benchmarks.stock import stock_calculator
from benchmarks.systems import SYSTEMS, chosen

QUICK = ("LiMnO2-8", "Si-64", "LiMnO2-64")
FULL = tuple(name for name in SYSTEMS if name != "LiMnO2-4096")  # stock would need 60 GB


def measure(name: str, atoms: Atoms, repeat: int, seconds: float) -> dict[str, Any]:
    """One row of the result."""
    graph = build_batch([atoms], Cutoffs())
    ours = begin(atoms, FastCHGNet, seconds)
    full = begin(atoms, FastCHGNet, seconds, everything=True)
    stock = begin(atoms, stock_calculator, seconds)
    for turn in range(repeat):
        for trajectory in (ours, stock, full) if turn % 2 else (full, stock, ours):
            trajectory.sample()
    return {
        "system": name,
        "atoms": len(atoms),
        "edges_per_atom": graph.n_edges / len(atoms),
        "angles_per_atom": graph.n_angles / len(atoms),
        "ours_ms": ours.median_ms,
        "ours_min_ms": ours.min_ms,
        "ours_all_ms": full.median_ms,
        "ours_all_min_ms": full.min_ms,
        "stock_ms": stock.median_ms,
        "stock_min_ms": stock.min_ms,
        "ratio": ratio(stock, ours),
        "ratio_all": ratio(stock, full),
        "ours_ms_per_atom": ours.median_ms / len(atoms),
        "stock_ms_per_atom": stock.median_ms / len(atoms),
        "ours_first_call_ms": 1e3 * ours.first_call,
        "stock_first_call_ms": 1e3 * stock.first_call,
        "steps_per_sample": {"ours": ours.steps_per_sample, "stock": stock.steps_per_sample},
        "samples_ms": {
            "ours": milliseconds(ours),
            "ours_all": milliseconds(full),
            "stock": milliseconds(stock),
        },
    }


def milliseconds(trajectory: Trajectory) -> list[float]:
    return [round(1e3 * sample, 3) for sample in trajectory.samples]


def table(rows: Sequence[dict[str, Any]], threads: int) -> Table:
    shown = Table(title=f"MD step through ASE, CHGNet 0.3.0, float32, {threads} threads")
    columns = ("system", "angles/atom", "stock ms", "ours ms", "(min)", "ratio", "all ms", "ratio", "ours ms/atom")
    for column in (*columns, "first call stock/ours ms"):
        shown.add_column(column, justify="left" if column == "system" else "right")
    for row in rows:
        shown.add_row(
            row["system"],
            f"{row['angles_per_atom']:.0f}",
            f"{row['stock_ms']:.1f}",
            f"{row['ours_ms']:.2f}",
            f"{row['ours_min_ms']:.2f}",
            f"{row['ratio']:.1f}×",
            f"{row['ours_all_ms']:.2f}",
            f"{row['ratio_all']:.1f}×",
            f"{row['ours_ms_per_atom']:.3f}",
            f"{row['stock_first_call_ms']:.0f} / {row['ours_first_call_ms']:.0f}",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description="MD step through ASE: FastCHGNet against stock chgnet.")
    parser.add_argument("--quick", action="store_true", help="three small systems, nothing is written")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--repeat", type=int, help="samples of each calculator (default 9, quick 3)")
    parser.add_argument("--threads", type=int, help="torch threads (default torch's own choice)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    repeat = options.repeat or (3 if options.quick else 9)
    seconds = 0.3 if options.quick else 1.0
    structures = chosen(options.systems or (QUICK if options.quick else FULL))
    stock_calculator(), FastCHGNet()  # imports do not count as a first call
    console = Console(width=None if Console().is_terminal else 140)
    rows = []
    for name, atoms in structures.items():
        with console.status(f"measuring {name}"):
            rows.append(measure(name, atoms, repeat, seconds))
    console.print(table(rows, torch.get_num_threads()))
    if not options.quick:
        console.print(f"written: {write_result('md', rows)}")


if __name__ == "__main__":
    main()
