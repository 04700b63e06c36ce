"""Balance of training over many ranks: steps measured here, and 1 to 1,000 ranks simulated over real crystals.

    python -m benchmarks.balance            writes results/balance.json, docs/figures/balance.png and the tables of
                                            docs/training.md; a few minutes
    python -m benchmarks.balance --quick    up to 32 ranks and few measured steps, writes nothing

Measured is the processor time of training steps over batches of real crystals, to which a cost model is fitted.
Simulated are the ranks and the clock.  The sizes of 128,483 crystals are real, batches are cut and dealt out by the
package's own sampler, and a rank's true time is what the model predicts for its share times a log-normal factor of the
spread that the fit has left.
"""

import argparse
import json
import lzma
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ase_fastchgnet.graph import Cutoffs
from ase_fastchgnet.model.checkpoint import load_checkpoint
from ase_fastchgnet.model.network import Network
from ase_fastchgnet.training.balance import DEALS, BalancedBatchSampler
from ase_fastchgnet.training.cost import StepCost, fit
from ase_fastchgnet.training.dataset import Batch, GraphDataset
from ase_fastchgnet.training.labels import Labelled
from ase_fastchgnet.training.objective import LossWeights, loss
from benchmarks._report import read_result, write_result
from benchmarks.report import circumstances, fill, markdown

Floats = NDArray[np.float64]
Objective = Literal["conservative", "direct"]
OBJECTIVES: tuple[Objective, ...] = ("conservative",)  # the first one is simulated

ROOT = Path(__file__).parents[1]
DATA = Path(__file__).parent / "data"
PAGE = ROOT / "docs" / "training.md"
FIGURE = ROOT / "docs" / "figures" / "balance.png"
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
SHOWN = (2, 4, 8, 32, 128, 1000)  # in the table of the page
BATCH = 16  # structures of each rank
GLOBAL = 512  # structures of all ranks, where that is what stays the same
BATCHES = 40  # of an epoch, simulated
STEPS = 40  # measured, each the fastest of
REPEATS = 3
BAR = 1.05  # of 32 ranks with 16 structures each
LABELS = {"lpt": "LPT, equal counts", "pair": "large with small", "random": "random"}
STYLES = {"lpt": "o-C0", "pair": "s--C1", "random": "^:C3"}

# What ranks send each other, assumed: one ring all-reduce of the gradient at each step, nothing of it hidden.
WEIGHTS = 412_525
BANDWIDTH = 10e9  # B/s of each rank
LATENCY = 20e-6  # s
FASTER = 50.0  # how many times faster than the core that was measured a rank on a GPU is taken to be


def measure(objective: Objective, steps: int) -> dict[str, Any]:
    """The cost model of training steps on one core, fitted to batches of 1 to 16 crystals and of their supercells."""
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    dataset = GraphDataset.build([_labelled(atoms, random) for atoms in _crystals(random)], Cutoffs(), None)
    network = Network(load_checkpoint("0.3.0")).train()
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.0)
    sizes, seconds = [], []
    for _ in range(steps):
        chosen = random.choice(len(dataset), random.integers(1, 17), replace=False).tolist()
        batch = dataset.batch(chosen)

        def step(batch: Batch = batch) -> None:
            optimiser.zero_grad()
            loss(network(batch.graph, forces=objective), batch, LossWeights()).total.backward()
            optimiser.step()

        seconds.append(min(_processor_time(step) for _ in range(REPEATS)))
        sizes.append(dataset.sizes[chosen].sum(axis=0))
    model = fit(np.array(sizes), seconds)
    logs = np.log(seconds) - np.log([model.seconds(size) for size in sizes])
    return {
        "what": "cost",
        "objective": objective,
        **asdict(model),
        "residual_log_std": float(logs.std()),
        "steps": steps,
    }


def _processor_time(work: Callable[[], None]) -> float:
    """Of this process, which has one thread: other processes on the machine count little."""
    start = time.process_time()
    work()
    return time.process_time() - start


def _crystals(random: np.random.Generator) -> list[Atoms]:
    """300 of the 2,000 crystals, every third one as a supercell of two cells."""
    with lzma.open(DATA / "mp20_2000.jsonl.xz", "rt") as file:
        lines = file.readlines()
    structures = [Atoms(**json.loads(lines[i])["structure"]) for i in random.choice(len(lines), 300, replace=False)]
    return [atoms.repeat((2, 1, 1)) if i % 3 == 0 else atoms for i, atoms in enumerate(structures)]


def _labelled(atoms: Atoms, random: np.random.Generator) -> Labelled:
    return Labelled(
        atoms=atoms,
        energy=-5.0 * len(atoms),
        forces=random.normal(0, 0.1, (len(atoms), 3)),
        stress=np.zeros((3, 3)),
        magmoms=np.zeros(len(atoms)),
        source="",
    )


def read_sizes() -> Floats:
    """(structures, 3) atoms, edges and angles of each crystal in data/mp_sizes.npz."""
    with np.load(DATA / "mp_sizes.npz") as data:
        return np.stack([data[name].astype(float) for name in ("atoms", "edges", "angles")], axis=1)


def all_reduce(ranks: int) -> float:
    """Seconds of an all-reduce of the gradient by a ring."""
    return 2 * (ranks - 1) / ranks * 4 * WEIGHTS / BANDWIDTH + 2 * math.log2(ranks) * LATENCY


def simulate(
    cost: StepCost, residual: float, costs: Floats, ranks: int, deal: str, fixed: Literal["share", "batch"]
) -> dict[str, Any]:
    """Balance of the first batches of an epoch, and efficiency.

    fixed  "share": each rank has BATCH structures, and efficiency is compared with one rank that has as many at a time;
           "batch": all together have GLOBAL, and it is compared with one rank that has them all at a time
    """
    batch_size = BATCH if fixed == "share" else GLOBAL // ranks
    sampler = BalancedBatchSampler(costs, batch_size=batch_size, n_ranks=ranks)
    random = np.random.default_rng(1)
    ideal, noisy, taken, needed = [], [], 0.0, 0.0
    for chosen in sampler.global_batches()[:BATCHES]:
        shares = DEALS[deal](costs[chosen], ranks)
        predicted = np.array([costs[chosen[share]].sum() for share in shares])
        true = predicted * np.exp(random.normal(-(residual**2) / 2, residual, ranks))
        ideal.append(predicted.max() / predicted.mean())
        noisy.append(true.max() / true.mean())
        taken += ranks * ((cost.step + true.max()) / FASTER + all_reduce(ranks))
        needed += ((ranks if fixed == "share" else 1) * cost.step + true.sum()) / FASTER
    return {
        "what": "simulated",
        "deal": deal,
        "ranks": ranks,
        "batch_size": batch_size,
        "fixed": fixed,
        "batches": len(ideal),
        "balance": float(np.mean(ideal)),
        "worst_balance": float(np.max(ideal)),
        "balance_with_noise": float(np.mean(noisy)),
        "efficiency": needed / taken,
    }


def run(counts: Sequence[int], steps: int) -> list[dict[str, Any]]:
    """What was measured, and then what was simulated."""
    rows = [measure(objective, steps) for objective in OBJECTIVES]
    model = StepCost(**{name: rows[0][name] for name in ("step", "atom", "edge", "angle")})
    residual = rows[0]["residual_log_std"]
    costs = model.of_structures(read_sizes())
    rows[0] |= {
        "structures": len(costs),
        "mean_s": float(costs.mean()),
        "largest_over_mean": float(costs.max() / costs.mean()),
    }
    for deal in DEALS:
        rows += [simulate(model, residual, costs, ranks, deal, "share") for ranks in counts]
        rows += [simulate(model, residual, costs, ranks, deal, "batch") for ranks in counts if GLOBAL % ranks == 0]
    return rows


def select(rows: Sequence[Mapping[str, Any]], deal: str, fixed: str = "share") -> list[Mapping[str, Any]]:
    return [row for row in rows if row.get("deal") == deal and row["fixed"] == fixed]


def plot(rows: Sequence[Mapping[str, Any]]) -> None:
    """Balance and efficiency over the number of ranks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    balance, efficiency = figure.subplots(1, 2)
    for deal, style in STYLES.items():
        found = select(rows, deal)
        ranks = [row["ranks"] for row in found]
        balance.plot(ranks, [row["balance"] for row in found], style, ms=4, label=LABELS[deal])
        efficiency.plot(ranks, [row["efficiency"] for row in found], style, ms=4)
    found = select(rows, "lpt", "batch")
    ranks, values = [row["ranks"] for row in found], [row["efficiency"] for row in found]
    efficiency.plot(
        ranks, values, "o-", color="C0", mfc="white", ms=4, label=f"LPT, {GLOBAL} structures over all ranks"
    )
    balance.axhline(BAR, color="0.6", lw=0.8, ls=":")
    balance.set(xscale="log", xlabel="ranks (simulated)", ylabel="balance: largest / mean share of a step")
    efficiency.set(
        xscale="log", xlabel="ranks (simulated)", ylabel="efficiency: speed / (ranks × speed of one)", ylim=(0, 1.05)
    )
    balance.set_title(f"{BATCH} structures for each rank", fontsize=10)
    efficiency.set_title("with noise and an all-reduce", fontsize=10)
    figure.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110)


def tables(result: Mapping[str, Any]) -> str:
    """Balance and efficiency of each way to deal; the same where the global batch stays; what they are made of."""
    rows = result["rows"]
    header = [f"balance / efficiency, {BATCH} for each rank", *(f"{n:,}" for n in SHOWN)]
    cells = [
        [name, *(f"{r['balance']:.3f} / {r['efficiency']:.0%}" for r in select(rows, deal) if r["ranks"] in SHOWN)]
        for deal, name in LABELS.items()
    ]
    counts = [f"{row['ranks']}" for row in select(rows, "lpt", "batch") if row["ranks"] > 1]
    split = markdown(
        [f"balance / efficiency, {GLOBAL} over all ranks", *counts],
        [[LABELS[d], *_cells(select(rows, d, "batch"))] for d in LABELS],
    )
    return "\n\n".join([circumstances(result), markdown(header, cells), split, _facts(rows)])


def _cells(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{row['balance']:.2f} / {row['efficiency']:.0%}" for row in rows if row["ranks"] > 1]


def _facts(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"* A {r['objective']} step on one core: {1e3 * r['step']:.0f} ms + {1e6 * r['atom']:.1f} µs per atom + "
        f"{1e6 * r['edge']:.1f} µs per edge + {1e6 * r['angle']:.1f} µs per angle, fitted to {r['steps']} steps, which "
        f"differ from it by a factor of log-normal spread {r['residual_log_std']:.2f}."
        for r in rows[: len(OBJECTIVES)]
    ]
    return "\n".join(
        [
            *lines,
            f"* {rows[0]['structures']:,} crystals of up to 52 atoms; the most expensive one costs "
            f"{rows[0]['largest_over_mean']:.1f} times the mean.",
            f"* Efficiency is that of conservative steps with this spread, on ranks {FASTER:.0f} times as fast as that "
            f"core, with a ring all-reduce of {WEIGHTS:,} gradients at {BANDWIDTH / 1e9:.0f} GB/s and "
            f"{1e6 * LATENCY:.0f} µs a hop, none of it hidden: assumptions, no measurements.",
        ]
    )


def show(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    for row in rows[: len(OBJECTIVES)]:
        console.print({key: round(value, 7) if isinstance(value, float) else value for key, value in row.items()})
    table = Table("deal", "ranks", "each", "balance", "worst", "with noise", "efficiency")
    for r in rows[len(OBJECTIVES) :]:
        numbers = (r["balance"], r["worst_balance"], r["balance_with_noise"], r["efficiency"])
        table.add_row(r["deal"], str(r["ranks"]), str(r["batch_size"]), *(f"{number:.3f}" for number in numbers))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Balance of training over many ranks: a simulation.")
    parser.add_argument("--quick", action="store_true", help="up to 32 ranks, few measured steps, nothing is written")
    quick = parser.parse_args().quick
    rows = run(tuple(n for n in RANKS if n <= 32) if quick else RANKS, 10 if quick else STEPS)
    console = Console()
    show(rows, console)
    if not quick:
        path = write_result("balance", rows)
        plot(rows)
        result = read_result("balance")
        assert result is not None
        PAGE.write_text(fill(PAGE.read_text(), {"balance": tables(result)}))
        console.print(f"written: {path}, {FIGURE}, {PAGE}")


if __name__ == "__main__":
    main()
