"""Tables of the documentation about workflows, from the rows of their results."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Markdown = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def relax_table(rows: Sequence[Row], markdown: Markdown) -> str:
    """relax_many, relax and stock on the same crystals."""
    (row,) = rows
    names = {
        "relax_many": "`relax_many`",
        "relax_many, two workers": "`relax_many(devices=2)`, a thread each",
        "relax": "`relax`, one by one",
        "stock": "stock's `StructOptimizer`",
    }
    cells = []
    for key, name in names.items():
        ratio = statistics.median(s / f for s, f in zip(row["seconds"]["stock"], row["seconds"][key], strict=True))
        seconds = statistics.median(row["seconds"][key])
        per_second = row["structures"] / seconds
        cells.append([name, f"{seconds:.1f} s", f"{per_second:.2f}", f"{row['steps'][key]}", f"**{ratio:.2f}×**"])
    header = [
        f"{row['structures']} crystals, {row['atoms']} atoms",
        "time",
        "crystals/s",
        "steps",
        "relax_many is faster",
    ]
    return (
        f"{markdown(header, cells)}\n\n`relax_many` and `relax` end at most "
        f"{row['largest_difference_to_relax_eV_per_atom']:.1e} eV/atom apart; the median difference to stock is "
        f"{row['median_difference_to_stock_eV_per_atom']:.1e}, the largest "
        f"{row['largest_difference_to_stock_eV_per_atom']:.1e} eV/atom."
    )


def phonons_table(rows: Sequence[Row], markdown: Markdown) -> str:
    """Forces of the displaced supercells, and all of a phonon calculation, against stock in float64."""
    header = [
        "",
        "supercells",
        "stock, `ef`",
        "stock's calculator",
        "ours",
        "ratio",
        "ratio to calculator",
        "all",
        "difference",
    ]
    cells = [
        [
            f"{row['system']}, {row['dtype']}",
            f"{row['supercells']} × {row['atoms']} atoms",
            f"{row['stock_forces_s']:.1f} s",
            f"{row['stock_calculator_s']:.1f} s",
            f"{row['ours_forces_s']:.2f} s",
            f"**{row['ratio_forces']:.1f}×**",
            f"**{row['stock_calculator_s'] / row['ours_forces_s']:.1f}×**",
            f"{row['ratio_all']:.1f}×",
            f"{row['largest_difference_THz']:.4f} THz",
        ]
        for row in rows
    ]
    return markdown(header, cells)


def screening_table(rows: Sequence[Row], markdown: Markdown) -> str:
    """Ways to evaluate many crystals."""
    speed = next(row for row in rows if row["what"] == "speed")
    memory = next(row for row in rows if row["what"] == "memory")
    last = list(speed["seconds"])[-1]
    cells = []
    for name, samples in speed["seconds"].items():
        seconds = statistics.median(samples)
        ratios = [slow / fast for slow, fast in zip(speed["seconds"][last], samples, strict=True)]
        ratio = f"**{statistics.median(ratios):.2f}×**"
        cells.append([name, f"{seconds:.1f} s", f"{speed['structures'] / seconds:.1f}", ratio])
    header = [f"{speed['structures']:,} crystals, {speed['atoms']:,} atoms", "time", "crystals/s", "against stock"]
    balance = ", ".join(f"{value:.3f}" for value in speed["balance"])
    (few, least), (many, most) = [(int(n), mib) for n, mib in memory["peak_mib"].items()]
    differences = "; ".join(
        f"{row['dtype']}: {row['energy_eV_per_atom']:.0e} eV/atom, {row['forces_eV_A']:.0e} eV/Å"
        for row in rows
        if row["what"] == "equality"
    )
    return "\n\n".join(
        [
            markdown(header, cells),
            f"Busy times of the two workers, longest over mean: {balance}. Largest differences to the calculator, one "
            f"structure at a time: {differences}. Peak memory after {few:,} structures from a generator: {least:.0f} "
            f"MiB, after {many:,}: {most:.0f} MiB.",
        ]
    )
