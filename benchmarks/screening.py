"""Evaluating many crystals: this package in one process and in two, and stock chgnet, in one run.

    python -m benchmarks.screening            2,000 crystals, three rounds, writes results/screening.json; half an hour
    python -m benchmarks.screening --quick    200 crystals, one round, writes nothing

The crystals are those of data/mp20_2000.jsonl.xz, of the Materials Project, with at most 20 atoms.  All ways give
energy, forces, stress and magnetic moments in float32 with the 0.3.0 weights; rounds of them alternate.  Also measured:
how evenly two workers are busy, how far results are from those of the calculator, the cost model, and the memory of a
process that evaluates 2,000 and 20,000 structures from a generator.
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from rich.console import Console
from rich.table import Table

from ase_fastchgnet import FastCHGNet, Prediction, evaluate_many, screen
from ase_fastchgnet.evaluation.chunk import Item, evaluate_chunk
from ase_fastchgnet.evaluation.cost import TYPICAL, CostModel, chunks, fit
from ase_fastchgnet.graph import Cutoffs
from ase_fastchgnet.graph.size import Size, expected_size, size_of
from benchmarks._parent import read_crystals
from benchmarks._report import write_result
from benchmarks.memory import peak_mib
from benchmarks.relax import ratio
from benchmarks.stock import stock_calculator

WAYS = {"one process, two threads": None, "one worker of two threads": ["cpu"], "two workers of one thread": 2}
STOCK = "stock predict_structure(list)"
OURS = "two workers of one thread"


def measure_speed(crystals: Sequence[Atoms], rounds: int) -> dict[str, Any]:
    """Seconds of each way, and how busy two workers were."""
    stock = _stock(crystals)
    for atoms in crystals[:2]:
        list(evaluate_many([atoms], FastCHGNet()))
    seconds: dict[str, list[float]] = {name: [] for name in [*WAYS, STOCK]}
    balances = []
    for _ in range(rounds):
        for name, devices in WAYS.items():
            with tempfile.TemporaryDirectory() as folder:
                done = screen(crystals, Path(folder) / "results.jsonl", FastCHGNet(), devices=devices, progress=False)
            assert done.n_done == len(crystals)
            seconds[name].append(done.seconds)
            if name == OURS:
                balances.append(done.balance)
        seconds[STOCK].append(_seconds(stock))
    return {
        "what": "speed",
        "structures": len(crystals),
        "atoms": sum(map(len, crystals)),
        "seconds": seconds,
        "ratio_to_stock": ratio(seconds[STOCK], seconds[OURS]),
        "ratio_of_two_workers_to_one": ratio(seconds["one worker of two threads"], seconds[OURS]),
        "ratio_of_two_workers_to_this_process": ratio(seconds["one process, two threads"], seconds[OURS]),
        "balance": balances,
    }


def _stock(crystals: Sequence[Atoms]) -> Callable[[], object]:
    """What a user of chgnet writes; the structures are converted beforehand."""
    from pymatgen.io.ase import AseAtomsAdaptor

    structures = [AseAtomsAdaptor.get_structure(atoms) for atoms in crystals]
    model = stock_calculator().model  # type: ignore[attr-defined]
    model.predict_structure(structures[:2])
    return lambda: model.predict_structure(structures)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_equality(crystals: Sequence[Atoms]) -> Iterator[dict[str, Any]]:
    """Largest differences between evaluate_many in two workers and the calculator, one structure at a time."""
    for dtype in ("float64", "float32"):
        calculator = FastCHGNet(dtype=dtype)
        found = [one.prediction for one in evaluate_many(crystals, calculator, devices=2)]
        alone = [calculator.evaluate([atoms])[0] for atoms in crystals]
        yield {"what": "equality", "dtype": dtype, "structures": len(crystals), **_differences(found, alone)}


def _differences(found: Sequence[Prediction | None], wanted: Sequence[Prediction]) -> dict[str, float]:
    names = {
        "energy": "energy_eV_per_atom",
        "forces": "forces_eV_A",
        "stress": "stress_eV_A3",
        "magmoms": "magmoms_muB",
    }
    largest = dict.fromkeys(names.values(), 0.0)
    for one, other in zip(found, wanted, strict=True):
        assert one is not None
        for name, column in names.items():
            difference = np.abs(one.results()[name] - other.results()[name]).max()
            largest[column] = max(largest[column], float(difference) / (len(one.magmoms) if name == "energy" else 1))
    return largest


def measure_cost(crystals: Sequence[Atoms]) -> dict[str, Any]:
    """The cost model on one thread, and how wrong predictions are that know no more than a structure's density."""
    cutoffs = Cutoffs()
    sizes = [size_of(atoms, cutoffs) for atoms in crystals]
    expected = [expected_size(atoms, cutoffs) for atoms in crystals]
    pieces = list(chunks(range(len(crystals)), lambda n: TYPICAL.seconds(expected[n])))
    options = FastCHGNet().chunk_options()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = [
        evaluate_chunk(options, [Item(n, crystals[n]) for n in piece]).seconds
        for piece in [pieces[0], *pieces]  # the first loads the model
    ][1:]
    torch.set_num_threads(threads)
    true = fit([Size.total(sizes[n] for n in piece) for piece in pieces], seconds)
    simple = fit([Size.total(expected[n] for n in piece) for piece in pieces], seconds)
    per_structure = [simple.seconds(e) / true.seconds(s) for s, e in zip(sizes, expected, strict=True)]
    return {
        "what": "cost",
        "structures": len(crystals),
        "cost_model": {**asdict(true), "residual_log_std": float(np.std(np.log(per_structure)))},
        "cost_model_of_expected_sizes": asdict(simple),
        "residual_log_std_of_chunks": _spread(true, [[sizes[n] for n in piece] for piece in pieces], seconds),
        "residual_log_std_of_chunks_by_expected_sizes": _spread(
            simple, [[expected[n] for n in piece] for piece in pieces], seconds
        ),
    }


def _spread(model: CostModel, sizes: Sequence[Sequence[Size]], seconds: Sequence[float]) -> float:
    return float(np.std(np.log([s / model.seconds(Size.total(of)) for of, s in zip(sizes, seconds, strict=True)])))


def measure_memory(counts: Sequence[int]) -> dict[str, Any]:
    """Peak memory (MiB) of a process that screens so many structures from a generator."""
    command = [sys.executable, "-m", "benchmarks.screening", "--memory-of"]
    peaks = {
        str(count): float(subprocess.run([*command, str(count)], check=True, capture_output=True, text=True).stdout)
        for count in counts
    }
    return {"what": "memory", "peak_mib": peaks, "growth": peaks[str(counts[-1])] / peaks[str(counts[0])] - 1}


def stream(count: int) -> float:
    """Peak memory (MiB) of this process after `count` structures of up to four atoms, over and over the same."""
    small = [atoms for atoms in read_crystals() if len(atoms) <= 4]
    source = itertools.islice(itertools.cycle(small), count)
    with tempfile.TemporaryDirectory() as folder:
        done = screen(source, Path(folder) / "results.jsonl", FastCHGNet(), progress=False)
    assert done.n_done == count
    return peak_mib()


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    speed = rows[0]
    table = Table("", "seconds", "structures/s", f"{OURS}: faster by", title=f"{speed['structures']} crystals")
    for name, samples in speed["seconds"].items():
        median = statistics.median(samples)
        faster = ratio(samples, speed["seconds"][OURS])
        table.add_row(name, f"{median:.1f}", f"{speed['structures'] / median:.1f}", f"{faster:.2f}×")
    console.print(table)
    console.print("balance of two workers:", ", ".join(f"{balance:.3f}" for balance in speed["balance"]))
    for row in rows[1:]:
        console.print(row)


def main() -> None:
    parser = argparse.ArgumentParser(description="Many structures, against stock's predict_structure.")
    parser.add_argument("--quick", action="store_true", help="200 crystals, one round, nothing is written")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", type=int, metavar="COUNT", help="print the peak memory of COUNT structures")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=r".*no neighbour")
    if options.memory_of:
        print(stream(options.memory_of))
        return
    crystals = read_crystals()[: 200 if options.quick else None]
    console = Console(width=None if Console().is_terminal else 120)
    rows = [
        measure_speed(crystals, 1 if options.quick else options.rounds),
        *measure_equality(crystals[::10]),
        measure_cost(crystals[::2]),
        measure_memory((200, 2_000) if options.quick else (2_000, 20_000)),
    ]
    show(rows, console)
    if not options.quick:
        console.print(f"written: {write_result('screening', rows)}")


if __name__ == "__main__":
    main()
