"""Results of the GPU benchmark as a file that grows part by part, as tables, and as a plot."""

import importlib.util
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks._gpu_setting import CRYSTALS, Row
from benchmarks._report import command_line, read_result, version, write_result

VERSIONS = ("torch", "ase_fastchgnet")


class Column(NamedTuple):
    """What a table shows of its rows."""

    title: str
    key: str
    form: str = "{}"  # of the number, where it is one
    scale: float = 1.0


def _columns(*columns: tuple[Any, ...]) -> tuple[Column, ...]:
    return tuple(Column(*column) for column in columns)


TABLES: dict[str, tuple[Column, ...]] = {
    "parity": _columns(
        ("of", "of"), ("way", "way"), ("", "kind"), ("quantity", "quantity"), ("worst", "worst", "{:.1e}"),
        ("unit", "unit"), ("of bar, %", "share_of_bar", "{:.1f}", 100), ("repeats", "repeats"), ("at", "structure"),
    ),
    "speed": _columns(
        ("system", "system"), ("MD step, ms", "md_ms", "{:.3f}"), ("bar, ms", "bar_ms", "{:g}"), ("met", "meets_bar"),
        ("with tf32", "md_tf32_ms", "{:.3f}"), ("µs/atom", "us_per_atom", "{:.2f}"),
        ("evaluation", "evaluation_ms", "{:.3f}"),
        ("model", "model_ms", "{:.3f}"), ("graph", "graph_ms", "{:.3f}"), ("search", "search_ms", "{:.3f}"),
        ("MD, not recorded", "md_eager_ms", "{:.3f}"), ("evaluation", "evaluation_eager_ms", "{:.3f}"),
        ("missed", "missed"),
    ),
    "memory": _columns(
        ("system", "system"), ("peak, MiB", "peak_bytes", "{:.1f}", 2**-20),
        ("kB/atom", "bytes_per_atom", "{:.1f}", 1e-3),
        ("bar, kB", "bar_bytes", "{:.0f}", 1e-3), ("met", "meets_bar"),
        ("estimate, MiB", "estimated_bytes", "{:.1f}", 2**-20),
        ("not recorded, MiB", "peak_eager_bytes", "{:.1f}", 2**-20),
        ("evaluation, ms", "evaluation_ms", "{:.3f}"), ("missed", "missed"),
    ),
    "profile": _columns(
        ("system", "system"), ("kernel", "kernel"), ("launches", "launches"), ("µs", "microseconds", "{:.1f}"),
        ("%", "share", "{:.1f}", 100), ("MiB", "moved_bytes", "{:.2f}", 2**-20), ("floor, µs", "floor_us", "{:.1f}"),
        ("times", "times_floor", "{:.1f}"), ("model, µs", "model_us", "{:.1f}"),
        ("at least", "model_least_us", "{:.1f}"),
    ),
    "stock": _columns(
        ("system", "system"), ("ours, ms", "ours_ms", "{:.3f}"), ("stock, ms", "stock_ms", "{:.1f}"),
        ("ratio", "ratio", "{:.1f}"), ("bar", "bar_ratio"), ("ours, MiB", "ours_peak_bytes", "{:.1f}", 2**-20),
        ("stock, MiB", "stock_peak_bytes", "{:.1f}", 2**-20), ("ratio", "memory_ratio", "{:.1f}"), ("met", "meets_bar"),
        ("missed", "missed"),
    ),
    "tuner": _columns(
        ("system", "system"), ("op", "op"), ("rows", "messages"), ("chosen", "chosen"), ("best", "best"),
        ("measured", "measured"), ("of", "measured_exhaustive"), ("slower than best, %", "loss", "{:.1f}", 100),
        ("default", "default_loss", "{:.1f}", 100), ("model's", "model_loss", "{:.1f}", 100), ("bar met", "meets_bar"),
    ),
}  # fmt: skip
SHOWN_KERNELS = 15  # of a system; the file has all


def result_name(gpu: str) -> str:
    """The file's name without its ending, for the GPU of this name."""
    return "gpu-" + re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")


def described(device: torch.device) -> dict[str, Any]:
    """The GPU, and the versions that its kernels are made by."""
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "capability": [properties.major, properties.minor],
        "processors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "triton": version("triton"),
    }


def write(rows: Mapping[str, Sequence[Row]], gpu: Mapping[str, Any]) -> Path:
    """Writes these rows by part; what an older file has of other parts and systems stays, if it is comparable."""
    name = result_name(gpu["name"])
    taken = {"command": command_line(), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    new = [{"part": part, **row, **taken} for part, some in rows.items() for row in some]
    return write_result(name, kept(read_result(name), new, gpu) + new, gpu=gpu)


def kept(old: Mapping[str, Any] | None, new: Sequence[Row], gpu: Mapping[str, Any]) -> list[Row]:
    """Rows that no new one replaces, if torch, Triton and this package are still what they were."""
    if old is None or old["gpu"] != gpu or any(old["versions"][name] != version(name) for name in VERSIONS):
        return []
    replaced = {(row["part"], row.get("system")) for row in new}
    return [row for row in old["rows"] if (row["part"], row.get("system")) not in replaced]


def show(part: str, rows: Sequence[Row]) -> None:
    """Prints the table of one part, with rich if it is there."""
    columns = [column for column in TABLES[part] if any(row.get(column.key) is not None for row in rows)]
    lines = [[cell(column, row.get(column.key)) for column in columns] for row in shortened(part, rows)]
    titles = [column.title for column in columns]
    if importlib.util.find_spec("rich") is not None:
        from rich.console import Console
        from rich.table import Table

        table = Table(*titles, title=part)
        for line in lines:
            table.add_row(*line)
        Console(width=None if Console().is_terminal else 180).print(table)
        return
    widths = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
    for line in ([part], titles, *lines):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=False)).rstrip())


def shortened(part: str, rows: Sequence[Row]) -> list[Row]:
    """Of a profile, the kernels that take longest."""
    seen: dict[str, int] = defaultdict(int)
    shown = []
    for row in rows:
        seen[row.get("system", "")] += 1
        if part != "profile" or seen[row["system"]] <= SHOWN_KERNELS:
            shown.append(row)
    return shown


def cell(column: Column, value: Any) -> str:
    """The value in its form; empty where there is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return column.form.format(value * column.scale if column.scale != 1 else value)
    return str(tuple(value)) if isinstance(value, tuple) else str(value)


def plot(path: Path, gpu: str, rows: Sequence[Row]) -> bool:
    """Time of an MD step over the number of atoms, if there is something to show and matplotlib to show it with."""
    measured = [row for row in rows if "md_ms" in row]
    if not measured or importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for crystal, color in zip(CRYSTALS, ("#0077bb", "#ee7733", "#009988"), strict=True):
        for key, style, label in (("md_ms", "o-", ""), ("md_eager_ms", "o:", ", steps not recorded")):
            points = [(r["atoms"], r[key]) for r in measured if r["system"].startswith(crystal) and key in r]
            if points:
                axes.loglog(*zip(*sorted(points), strict=True), style, color=color, label=crystal + label)
    bars = sorted({(row["atoms"], row["bar_ms"]) for row in measured if "bar_ms" in row})
    if bars:
        axes.loglog(*zip(*bars, strict=True), "k_", ms=14, label="LiMnO2 must reach")
    axes.set(xlabel="atoms", ylabel="MD step through ASE, ms", title=f"{gpu}, CHGNet 0.3.0, float32")
    axes.legend()
    figure.savefig(path, dpi=150)
    return True
