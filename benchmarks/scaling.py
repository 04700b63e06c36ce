"""128,483 crystals on 1 to 1,000 workers, simulated: throughput and balance of the shared queue and of static splits.

    python -m benchmarks.scaling            writes results/scaling.json, docs/figures/scaling.png and the table of
                                            docs/scaling.md; within a minute
    python -m benchmarks.scaling --quick    up to 32 workers, writes nothing

Simulated are the workers and the clock. The sizes of the crystals are real, chunks are made by the package's own
function, what the parent process and a message cost is measured here, and the cost of an evaluation is the model that
benchmarks.screening has fitted. True times are predicted ones times a log-normal factor of the fit's residual.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ase_fastchgnet.evaluation.cost import TYPICAL, CostModel, chunks
from ase_fastchgnet.graph.size import Size
from benchmarks._parent import DATA, Parent, measure
from benchmarks._report import read_result, write_result
from benchmarks._simulation import (
    Floats,
    Outcome,
    by_count,
    longest_first,
    shared_queue,
    side_by_side,
    static_split,
)
from benchmarks.report import circumstances, fill, markdown

Booleans = NDArray[np.bool_]

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scaling.md"
FIGURE = ROOT / "docs" / "figures" / "scaling.png"
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
SHOWN = (1, 8, 32, 128, 1000)  # in the table of the page
RESIDUAL = 0.15  # standard deviation of log(true / predicted), where no fit has said it
UNEVEN = 0.10  # standard deviation of the logarithm of the speed of workers that are not alike
STRATEGIES = {  # name: style in the figure
    "shared queue": "o-C0",
    "shared queues, several parents": "s-C2",
    "longest first, static": "^--C4",
    "random, static": "v:C1",
    "equal counts, static": "x:C3",
}


def read_sizes() -> Floats:
    """(structures, 4) what `Size` has, of each crystal in data/mp_sizes.npz."""
    with np.load(DATA / "mp_sizes.npz") as data:
        columns = [data[name].astype(float) for name in ("atoms", "edges", "angles")]
    return np.stack([np.ones(len(columns[0])), *columns], axis=1)


def evaluation_cost() -> tuple[CostModel, float, str]:
    """Cost model, standard deviation of log(true / predicted), and where they are from."""
    screening = read_result("screening") or {"rows": []}
    found = next((row["cost_model"] for row in [screening, *screening["rows"]] if "cost_model" in row), None)
    if found is None:
        return TYPICAL, RESIDUAL, "the package's default, residual assumed"
    return CostModel(**{k: found[k] for k in asdict(TYPICAL)}), found["residual_log_std"], "results/screening.json"


def seconds_of(model: CostModel, sizes: Floats) -> Floats:
    return np.array([model.seconds(Size(*size)) for size in sizes])


class Crystals:
    """Structures in the order of their source, and what each of them takes."""

    def __init__(self, predicted: Floats, true: Floats, reading: Floats) -> None:
        self.predicted, self.true, self.reading = predicted, true, reading

    def part(self, chosen: Booleans) -> "Crystals":
        """Some of them."""
        return Crystals(self.predicted[chosen], self.true[chosen], self.reading[chosen])

    def queued(self, slowness: Floats, parent: Parent) -> Outcome:
        """By one shared queue."""
        in_flight = 2 * len(slowness)
        pieces = chunks(range(len(self.predicted)), self.predicted.__getitem__)
        starts = np.array([piece[0] for piece in pieces])
        work, before = (np.add.reduceat(of, starts) for of in (self.true, self.reading))
        return shared_queue(work, slowness, in_flight=in_flight, before=before, message=parent.message)


def simulate(crystals: Crystals, slowness: Floats, parent: Parent, per_parent: int) -> dict[str, Outcome]:
    """All strategies on workers of that slowness."""
    workers, n = len(slowness), len(crystals.true)
    parents = math.ceil(workers / per_parent)
    parent_of = np.arange(n) % workers % parents  # each has its share of the crystals, as of the workers
    parts = [crystals.part(parent_of == k).queued(slowness[k::parents], parent) for k in range(parents)]
    by_chance = np.random.default_rng(1).permutation(by_count(n, workers))
    return {
        "shared queue": crystals.queued(slowness, parent),
        "shared queues, several parents": side_by_side(parts),
        "longest first, static": static_split(crystals.true, longest_first(crystals.predicted, workers), slowness),
        "random, static": static_split(crystals.true, by_chance, slowness),
        "equal counts, static": static_split(crystals.true, by_count(n, workers), slowness),
    }


def rows_of(outcomes: Mapping[str, Outcome], n: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "what": "simulated",
            "strategy": name,
            "workers": len(outcome.busy),
            **more,
            "balance": outcome.balance,
            "efficiency": outcome.efficiency,
            "structures_per_s": n / outcome.makespan,
        }
        for name, outcome in outcomes.items()
    ]


def run(counts: Sequence[int]) -> list[dict[str, Any]]:
    """What was assumed and measured, and then what was simulated."""
    model, residual, source = evaluation_cost()
    parent = measure(model)
    sizes = read_sizes()
    predicted = seconds_of(model, sizes)
    random = np.random.default_rng(0)
    true = predicted * np.exp(random.normal(-(residual**2) / 2, residual, len(predicted)))
    crystals = Crystals(predicted, true, seconds_of(parent.model, sizes))
    n_chunks = sum(1 for _ in chunks(range(len(predicted)), predicted.__getitem__))
    each = float(crystals.reading.mean())
    saturation = float(true.mean() / each)
    per_parent = 2 ** max(0, int(math.log2(0.75 * saturation)))
    rows: list[dict[str, Any]] = [
        {
            "what": "evaluation",
            "source": source,
            **asdict(model),
            "residual_log_std": residual,
            "structures": len(predicted),
            "chunks": n_chunks,
            "ms_per_structure": 1e3 * true.mean(),
            "longest_s": true.max(),
        },
        {
            "what": "parent",
            **asdict(parent.model),
            "message_ms": 1e3 * parent.message,
            "ms_per_structure": 1e3 * each,
            "structures_per_s": 1 / each,
            "saturated_by_workers": saturation,
            "workers_per_parent": per_parent,
        },
    ]
    for workers in counts:
        even = np.ones(workers)
        rows += rows_of(simulate(crystals, even, parent, per_parent), len(true), speeds="equal")
    uneven = np.exp(np.random.default_rng(2).normal(0, UNEVEN, 32))
    return rows + rows_of(simulate(crystals, uneven, parent, per_parent), len(true), speeds="uneven")


def select(rows: Sequence[Mapping[str, Any]], strategy: str, speeds: str = "equal") -> list[Mapping[str, Any]]:
    return [r for r in rows if r.get("strategy") == strategy and r["speeds"] == speeds]


def plot(rows: Sequence[Mapping[str, Any]]) -> None:
    """Throughput and balance over the number of workers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    throughput, balance = figure.subplots(1, 2)
    for name, style in STRATEGIES.items():
        found = select(rows, name)
        workers = [r["workers"] for r in found]
        throughput.plot(workers, [r["structures_per_s"] for r in found], style, ms=4, label=name)
        balance.plot(workers, [r["balance"] for r in found], style, ms=4)
    evaluation, parent = rows[0], rows[1]
    ideal = [1e3 / evaluation["ms_per_structure"] * w for w in (WORKERS[0], WORKERS[-1])]
    throughput.plot((WORKERS[0], WORKERS[-1]), ideal, "-", color="0.8", lw=4, zorder=0, label="ideal")
    throughput.axhline(parent["structures_per_s"], color="C0", lw=0.8, ls=":")
    limit = "all that one parent reads and writes"
    throughput.text(1000, 0.9 * parent["structures_per_s"], limit, color="C0", fontsize=8, ha="right", va="top")
    throughput.set(xscale="log", yscale="log", xlabel="workers (simulated)", ylabel="structures / s")
    balance.set(xscale="log", xlabel="workers (simulated)", ylabel="balance: longest / mean busy time")
    balance.axhline(1.1, color="0.6", lw=0.8, ls=":")
    balance.set_ylim(0.98, min(2.6, balance.get_ylim()[1]))
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110)


def tables(result: Mapping[str, Any]) -> str:
    """Balance and efficiency of each strategy; where the numbers are from; workers of unequal speed."""
    rows = result["rows"]
    e, p = rows[0], rows[1]
    header = ["balance / efficiency", *(f"{n:,}" for n in SHOWN)]
    cells = [
        [name, *(f"{r['balance']:.2f} / {r['efficiency']:.0%}" for r in select(rows, name) if r["workers"] in SHOWN)]
        for name in STRATEGIES
    ]
    uneven = [(name, select(rows, name, "uneven")[0]) for name in STRATEGIES]
    unequal = markdown(
        [f"32 workers, speeds ± {UNEVEN:.0%}", "balance", "efficiency"],
        [[name, f"{r['balance']:.2f}", f"{r['efficiency']:.0%}"] for name, r in uneven],
    )
    facts = [
        f"* Evaluation: {e['ms_per_structure']:.1f} ms a crystal on average, {1e3 * e['longest_s']:.0f} ms at most "
        f"({e['structures']:,} crystals, {e['chunks']:,} chunks); true times differ from predicted ones by a factor "
        f"of log-normal spread {e['residual_log_std']:.2f}. Cost model: {e['source']}.",
        f"* Parent, measured: {p['ms_per_structure']:.2f} ms a crystal to read a line of JSON, size, send, receive and "
        f"write; that is {p['structures_per_s']:.0f} crystals/s, or **{p['saturated_by_workers']:.0f} workers**.",
        f"* Message, measured: {p['message_ms']:.1f} ms from a worker's answer to its next chunk.",
        f"* Several parents: one for at most {p['workers_per_parent']} workers.",
    ]
    return "\n\n".join([circumstances(result), markdown(header, cells), unequal, "\n".join(facts)])


def show(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    for row in rows[:2]:
        console.print({key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()})
    table = Table("strategy", "workers", "speeds", "balance", "efficiency", "structures/s")
    for row in rows[2:]:
        numbers = [f"{row['balance']:.3f}", f"{row['efficiency']:.1%}", f"{row['structures_per_s']:.0f}"]
        table.add_row(row["strategy"], str(row["workers"]), row["speeds"], *numbers)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="How screening scales: a simulation.")
    parser.add_argument("--quick", action="store_true", help="up to 32 workers, nothing is written")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    rows = run(tuple(w for w in WORKERS if w <= 32) if quick else WORKERS)
    console = Console()
    show(rows, console)
    if not quick:
        path = write_result("scaling", rows)
        plot(rows)
        result = read_result("scaling")
        assert result is not None
        PAGE.write_text(fill(PAGE.read_text(), {"scaling": tables(result)}))
        console.print(f"written: {path}, {FIGURE}, {PAGE}")


if __name__ == "__main__":
    main()
