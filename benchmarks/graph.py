"""Time to build graphs: from nothing against stock chgnet's converter, and per MD step with a cache.

    python -m benchmarks.graph              writes results/graph.json; five minutes, nearly all of them stock's
    python -m benchmarks.graph --quick      small systems, within half a minute, writes nothing

"fresh" is build_batch without a cache: validation, neighbour search, edges, bonds and angles. Stock is
CrystalGraphConverter(algorithm="fast") on a pymatgen Structure that is at hand already. Samples of the two alternate.
"step" is build_batch with a valid NeighborCache after every atom has moved by 0.005 Å or so, "same" when no edge came
or went.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ase import Atoms
from rich.console import Console
from rich.table import Table

from ase_fastchgnet.graph import Cutoffs, NeighborCache, build_batch
from benchmarks._report import write_result
from benchmarks.systems import crystal

CUTOFFS = Cutoffs()
SKIN = 1.0  # Å
FRESH = (("LiMnO2", 1), ("LiMnO2", 4), ("LiMnO2", 8), ("Si", 4), ("Si", 8))  # crystal, repeats of its 8-atom cell
STEPS = (("LiMnO2", 1), ("LiMnO2", 2), ("LiMnO2", 4), ("LiMnO2", 8), ("Si", 4), ("Si", 8))
QUICK = (("LiMnO2", 1), ("LiMnO2", 2))


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def stock_conversion(atoms: Atoms) -> Callable[[], object]:
    """Stock's conversion of `atoms`, ready to be called."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations in its dependencies
        from chgnet.graph import CrystalGraphConverter
        from pymatgen.io.ase import AseAtomsAdaptor

        converter = CrystalGraphConverter(
            atom_graph_cutoff=CUTOFFS.atom, bond_graph_cutoff=CUTOFFS.bond, algorithm="fast", verbose=False
        )
        structure = AseAtomsAdaptor.get_structure(atoms)
    assert converter.algorithm == "fast"
    return lambda: converter(structure)


def measure_fresh(name: str, atoms: Atoms, repeat: int) -> dict[str, Any]:
    """Whole graphs from nothing: three of ours, one of stock's, in turn."""
    graph = build_batch([atoms], CUTOFFS)
    stock = stock_conversion(atoms)
    stock()
    ours_ms, stock_ms = [], []
    for _ in range(repeat):
        ours_ms += [milliseconds(lambda: build_batch([atoms], CUTOFFS)) for _ in range(3)]
        stock_ms.append(milliseconds(stock))
    ours_median, stock_median = statistics.median(ours_ms), statistics.median(stock_ms)
    return {
        "what": "fresh",
        "system": name,
        "atoms": len(atoms),
        "edges": graph.n_edges,
        "angles": graph.n_angles,
        "ours_ms": ours_median,
        "stock_ms": stock_median,
        "ratio": stock_median / ours_median,
        "samples_ms": {"ours": ours_ms, "stock": stock_ms},
    }


def measure_step(name: str, atoms: Atoms, repeat: int) -> dict[str, Any]:
    """Graphs of a moving structure whose candidates stay valid."""
    rng = np.random.default_rng(0)
    start = atoms.positions.copy()
    cache = NeighborCache(CUTOFFS, SKIN)
    build_batch([atoms], CUTOFFS, caches=[cache])
    step_ms, same_ms = [], []
    for _ in range(10 * repeat):
        atoms.positions = start + rng.normal(scale=0.005, size=start.shape)
        step_ms.append(milliseconds(lambda: build_batch([atoms], CUTOFFS, caches=[cache])))
        same_ms.append(milliseconds(lambda: build_batch([atoms], CUTOFFS, caches=[cache])))
    assert cache.builds == 1
    return {
        "what": "step",
        "system": name,
        "atoms": len(atoms),
        "skin": SKIN,
        "ours_ms": statistics.median(step_ms),
        "same_ms": statistics.median(same_ms),
        "samples_ms": {"step": step_ms, "same": same_ms},
    }


def show(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table("", "system", "atoms", "ours (ms)", "stock (ms)", "ratio", "same (ms)")
    for row in rows:
        numbers = [f"{row[key]:.3g}" if key in row else "" for key in ("ours_ms", "stock_ms", "ratio", "same_ms")]
        table.add_row(row["what"], row["system"], str(row["atoms"]), *numbers)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Building graphs: FastCHGNet against stock chgnet.")
    parser.add_argument("--quick", action="store_true", help="small systems, nothing is written")
    parser.add_argument("--repeat", type=int, help="conversions by stock; ours takes more (default 5, quick 3)")
    parser.add_argument("--threads", type=int, help="torch threads (default torch's own choice)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    repeat = arguments.repeat or (3 if arguments.quick else 5)
    fresh, steps = (QUICK, QUICK) if arguments.quick else (FRESH, STEPS)
    rows = [measure_fresh(f"{name}-{8 * n**3}", crystal(name, n), repeat) for name, n in fresh]
    rows += [measure_step(f"{name}-{8 * n**3}", crystal(name, n), repeat) for name, n in steps]
    console = Console()
    show(rows, console)
    if not arguments.quick:
        console.print(f"written: {write_result('graph', rows)}")


if __name__ == "__main__":
    main()
