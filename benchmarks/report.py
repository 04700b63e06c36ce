"""Tables and figure of the documentation, made from results/*.json: `python -m benchmarks.report`.

Replaces what stands between `<!-- begin NAME -->` and `<!-- end NAME -->` in the files below, and nothing else. A block
whose benchmark has not been run stays as it is.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._report import read_result
from benchmarks._workflow_tables import phonons_table, relax_table, screening_table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "performance.md", ROOT / "docs" / "accuracy.md"]
FIGURE = ROOT / "docs" / "figures" / "md_ratio.png"
README_SYSTEMS = ("LiMnO2-8", "LiMnO2-64", "LiMnO2-512", "Si-512", "MgO-512", "Cu-500")
QUANTITIES = ("energy", "forces", "stress", "magmoms")

Row = Mapping[str, Any]
Result = Mapping[str, Any]


def main() -> None:
    md, graph, memory, parity = (read_result(name) for name in ("md", "graph", "memory", "parity"))
    blocks: dict[str, str] = {}
    if md is not None:
        blocks["speed"] = speed_table(md)
        blocks["md"] = "\n\n".join([circumstances(md), md_table(md["rows"]), md_details(md["rows"])])
        plot(md)
        print(f"written: {FIGURE.relative_to(ROOT)}")
    if graph is not None:
        blocks["graph"] = "\n\n".join([circumstances(graph), graph_table(graph["rows"])])
    if memory is not None:
        blocks["memory"] = "\n\n".join([circumstances(memory), memory_table(memory["rows"])])
        blocks["memory in short"] = memory_sentence(memory["rows"])
    if parity is not None:
        blocks["parity"] = "\n\n".join([circumstances(parity), parity_table(parity["rows"])])
    tables = {"relax": relax_table, "phonons": phonons_table, "screening": screening_table}
    for found, table in tables.items():
        if (result := read_result(found)) is not None:
            blocks[found] = "\n\n".join([circumstances(result), table(result["rows"], markdown)])
    for page in PAGES:
        old = page.read_text()
        new = fill(old, blocks)
        if new != old:
            page.write_text(new)
            print(f"written: {page.relative_to(ROOT)}")


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """`text` with the contents of its marked blocks replaced."""
    for name, content in blocks.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        if begin in text:
            before, _, rest = text.partition(begin)
            text = f"{before}{begin}{content}\n{end}{rest.partition(end)[2]}"
    return text


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A markdown table; columns after the first `left` are aligned to the right."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *rows])


def circumstances(result: Result) -> str:
    """One sentence: machine, versions, date, command."""
    machine, versions = result["machine"], result["versions"]
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    threads = result["threads"] or result["rows"][0]["threads"]
    instructions = f" ({', '.join(machine['instructions'])})" if machine["instructions"] else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores{instructions}, {machine['memory_gib']:.0f} GiB, {machine['os']}; "
        f"{threads} threads; {packages}; {result['date'][:10]}; `{result['command']}`"
    )


def speed_table(md: Result) -> str:
    """The short table of the README, and where it comes from."""
    header = ["system", "atoms", "stock chgnet", "FastCHGNet", "ratio (lowest–highest)"]
    rows = [r for r in md["rows"] if r["system"] in README_SYSTEMS]
    cells = [[name(r), str(r["atoms"]), ms(r["stock_ms"]), ms(r["ours_ms"]), ratio_and_range(r)] for r in rows]
    source = f"{md['machine']['cpu']}, {md['threads']} threads, float32; `{md['command']}`"
    return f"{markdown(header, cells)}\n\n{source}"


def md_table(rows: Sequence[Row]) -> str:
    """What a step costs, and what it costs per atom and per angle."""
    header = ["system", "edges/atom", "angles/atom", "stock", "ours", "ratio (lowest–highest)"]
    header += ["ours per atom", "ours per 1,000 angles"]
    cells = [
        [
            r["system"],
            f"{r['edges_per_atom']:.0f}",
            f"{r['angles_per_atom']:.0f}",
            ms(r["stock_ms"]),
            ms(r["ours_ms"]),
            ratio_and_range(r),
            f"{r['ours_ms_per_atom']:.3f} ms",
            f"{1000 * r['ours_ms_per_atom'] / r['angles_per_atom']:.1f} ms",
        ]
        for r in rows
    ]
    return markdown(header, cells)


def md_details(rows: Sequence[Row]) -> str:
    """The fastest samples, all properties, and the first call."""
    header = ["system", "fastest, stock", "fastest, ours", "ratio", "all properties, ours", "ratio"]
    header += ["first call, stock", "first call, ours"]
    cells = [
        [
            r["system"],
            ms(r["stock_min_ms"]),
            ms(r["ours_min_ms"]),
            f"{r['stock_min_ms'] / r['ours_min_ms']:.1f}×",
            ms(r["ours_all_ms"]),
            f"{r['ratio_all']:.1f}×",
            ms(r["stock_first_call_ms"]),
            ms(r["ours_first_call_ms"]),
        ]
        for r in rows
    ]
    return markdown(header, cells)


def graph_table(rows: Sequence[Row]) -> str:
    """Graphs from nothing, and in MD where candidates are kept; a system may have either row or both."""
    fresh = {r["system"]: r for r in rows if r["what"] == "fresh"}
    steps = {r["system"]: r for r in rows if r["what"] == "step"}
    header = ["system", "stock, from nothing", "ours, from nothing", "ratio", "ours, per MD step"]
    cells = []
    for system in dict.fromkeys([*steps, *fresh]):
        f, s = fresh.get(system), steps.get(system)
        first = [ms(f["stock_ms"]), ms(f["ours_ms"]), f"**{f['ratio']:.0f}×**"] if f else ["", "", ""]
        cells.append([system, *first, ms(s["ours_ms"]) if s else ""])
    return markdown(header, cells)


def memory_table(rows: Sequence[Row]) -> str:
    header = ["", "system", "after imports", "peak", "added per atom", "one evaluation"]
    cells = [
        [
            {"ours": "FastCHGNet", "stock": "stock chgnet"}[r["calculator"]],
            r["system"],
            f"{r['baseline_mib']:.0f} MiB",
            f"{r['peak_mib']:.0f} MiB",
            f"{r['mib_per_atom']:.3f} MiB",
            f"{r['best_s']:.2f} s",
        ]
        for r in rows
    ]
    return markdown(header, cells, left=2)


def memory_sentence(rows: Sequence[Row]) -> str:
    """Of the README: what evaluating 512 atoms adds to the memory of either."""
    added = {r["calculator"]: r["peak_mib"] - r["baseline_mib"] for r in rows if r["system"] == "LiMnO2-512"}
    ours, stock = added["ours"], added["stock"]
    return (
        f"Energy, forces and stress of LiMnO2-512 take {ours:.0f} MiB of memory beyond the imports; "
        f"stock takes {stock:.0f} MiB ({stock / ours:.0f}×)."
    )


def parity_table(rows: Sequence[Row]) -> str:
    pairs = list(dict.fromkeys(r["pair"] for r in rows))
    cells: dict[tuple[str, ...], list[str]] = {}
    for quantity in QUANTITIES:
        for r in rows:
            if r["quantity"] == quantity:
                key = (r["model"], r["set"], str(r["structures"]), f"{quantity}, {r['unit']}")
                cells.setdefault(key, []).append(f"{r['worst']:.1e} ({r['median']:.1e})")
    header = ["model", "set", "structures", "quantity", *pairs]
    sets = list(dict.fromkeys((r["model"], r["set"]) for r in rows))
    ordered = sorted(cells, key=lambda key: sets.index((key[0], key[1])))  # stable: quantities keep their order
    return markdown(header, [[*key, *cells[key]] for key in ordered], left=4)


def pair_ratios(row: Row) -> list[float]:
    """Stock over ours, of each two samples taken one after the other."""
    samples = row["samples_ms"]
    return [stock / ours for stock, ours in zip(samples["stock"], samples["ours"], strict=True)]


def ratio_and_range(row: Row) -> str:
    """The median ratio and how far single pairs of samples strayed from it."""
    ratios = pair_ratios(row)
    return f"**{row['ratio']:.1f}×** ({min(ratios):.1f}–{max(ratios):.1f})"


def ms(value: float) -> str:
    """Milliseconds to three digits."""
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def name(row: Row) -> str:
    return str(row["system"]).rpartition("-")[0]


def plot(md: Result) -> None:
    """How many times faster each system is, the range of single pairs as a line, the times beside the bars."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = md["rows"][::-1]
    ratios = [r["ratio"] for r in rows]
    colors = {"LiMnO2": "#0077bb", "Si": "#ee7733", "MgO": "#009988", "Cu": "#cc3311"}
    figure, axes = plt.subplots(figsize=(7, 0.45 * len(rows) + 1.2), layout="constrained")
    axes.barh([r["system"] for r in rows], ratios, color=[colors.get(name(r), "0.5") for r in rows], height=0.7)
    lowest, highest = [min(pair_ratios(r)) for r in rows], [max(pair_ratios(r)) for r in rows]
    axes.hlines(range(len(rows)), lowest, highest, color="0.2", lw=1.5)
    for i, r in enumerate(rows):
        label = f" {r['ratio']:.1f}×  ({ms(r['stock_ms'])} → {ms(r['ours_ms'])})"
        axes.text(highest[i], i, label, va="center", fontsize=9)
    axes.axvline(1, color="0.3", lw=1, ls="--")
    axes.set(xlim=(0, 1.5 * max(highest)), xlabel="times faster than stock chgnet, one MD step through ASE")
    axes.set_title(f"{md['machine']['cpu']}, {md['threads']} threads, CHGNet 0.3.0, float32", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    main()
