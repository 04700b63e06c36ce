"""Peak memory of one energy + forces + stress, each in a fresh process.

python -m benchmarks.memory          writes results/memory.json
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._report import write_result
from benchmarks.systems import chosen

# Stock would need about 60 GB for 4,096 atoms.
CASES = (("ours", "LiMnO2-512"), ("stock", "LiMnO2-512"), ("ours", "LiMnO2-4096"))
EVALUATIONS = 3  # the second and third find the allocator as a simulation would


def peak_mib() -> float:
    """Highest resident memory of this process so far, MiB.

    Linux's VmHWM, because ru_maxrss also remembers the parent it was forked from.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def measure_here(which: str, system: str) -> dict[str, Any]:
    """Baseline once the calculator exists, then the peak: one row of the result."""
    import torch
    from ase.calculators.calculator import Calculator

    calculator: Calculator
    if which == "ours":
        from ase_fastchgnet import FastCHGNet

        calculator = FastCHGNet()
    else:
        from benchmarks.stock import stock_calculator

        calculator = stock_calculator()
    atoms = chosen([system])[system]
    baseline = peak_mib()
    atoms.calc = calculator
    seconds = []
    for _ in range(EVALUATIONS):
        atoms.rattle(1e-3)
        start = time.perf_counter()
        atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
        seconds.append(time.perf_counter() - start)
    peak = peak_mib()
    return {
        "calculator": which,
        "system": system,
        "atoms": len(atoms),
        "threads": torch.get_num_threads(),
        "baseline_mib": baseline,
        "peak_mib": peak,
        "mib_per_atom": (peak - baseline) / len(atoms),
        "first_s": seconds[0],
        "best_s": min(seconds),
    }


def measure(which: str, system: str) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--here", which, system]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def table(rows: Sequence[dict[str, Any]]) -> Table:
    shown = Table(title="Peak resident memory, energy + forces + stress")
    for column in ("calculator", "system", "after imports", "peak", "per atom", "evaluation"):
        shown.add_column(column, justify="left" if column in ("calculator", "system") else "right")
    for row in rows:
        shown.add_row(
            row["calculator"],
            row["system"],
            f"{row['baseline_mib']:.0f} MiB",
            f"{row['peak_mib']:.0f} MiB",
            f"{row['mib_per_atom']:.3f} MiB",
            f"{row['best_s']:.2f} s",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of one evaluation, in fresh processes.")
    parser.add_argument("--here", nargs=2, metavar=("WHICH", "SYSTEM"), help="measure this process; used internally")
    parser.add_argument("--quick", action="store_true", help="64 atoms instead of 512 and 4096, nothing is written")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure_here(*options.here)))
        return
    cases = (("ours", "LiMnO2-64"), ("stock", "LiMnO2-64")) if options.quick else CASES
    console = Console()
    rows = []
    for which, system in cases:
        with console.status(f"measuring {which} on {system}"):
            rows.append(measure(which, system))
    console.print(table(rows))
    if not options.quick:
        console.print(f"written: {write_result('memory', rows)}")


if __name__ == "__main__":
    main()
