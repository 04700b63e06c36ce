"""Where the time of one evaluation goes, and what the engine's settings and its central op are worth.

    python -m benchmarks.engine          writes results/engine.json
    python -m benchmarks.engine --quick  LiMnO2-64 alone, writes nothing

One torch thread for the shares (the profiler would count waiting as work), torch's own choice for the rest.
Variants alternate, so that a busy moment of the machine hits all of them.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from ase import Atoms
from torch.profiler import ProfilerActivity, profile

from ase_fastchgnet import load_checkpoint
from ase_fastchgnet.graph import Cutoffs, GraphBatch, build_batch
from ase_fastchgnet.model.engine import Engine
from ase_fastchgnet.model.engine import engine as engine_module
from benchmarks._report import write_result
from benchmarks.systems import chosen
from fastchgnet_kernels import segment_sum
from fastchgnet_kernels.gated_message import rows as rows_module

KINDS = {
    "matrix products": ("mm", "addmm", "addmm_"),
    "sigmoid, silu and their backwards": ("sigmoid", "sigmoid_", "silu", "silu_backward", "sigmoid_backward", "clamp"),
    "layer norms": ("native_layer_norm", "native_layer_norm_backward"),
    "products and sums": ("mul", "mul_", "add", "add_", "addcmul", "addcmul_", "sum", "sub", "sub_"),
    "gathers and segment sums": ("_embedding_bag_forward_only", "index_select", "index_add_", "index_copy_"),
}
ROWS = 4096


def shares(engine: Engine, graph: GraphBatch) -> dict[str, float]:
    """Part of the processor time in each kind of op, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    engine.evaluate(graph)
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        engine.evaluate(graph)
    torch.set_num_threads(threads)
    spent = {event.key.removeprefix("aten::"): event.self_cpu_time_total for event in trace.key_averages()}
    total = sum(spent.values())
    part = {kind: sum(spent.get(name, 0.0) for name in names) / total for kind, names in KINDS.items()}
    return part | {"everything else": 1 - sum(part.values())}


def compare(variants: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Median time of each, ms."""
    samples: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeat + 1):  # the first warms up
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if turn:
                samples[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in samples.items()}


def with_settings(engine: Engine, graph: GraphBatch, keep_bytes: int, block_rows: int | None) -> Callable[[], object]:
    """One evaluation under these settings."""

    def run() -> object:
        engine_module.KEEP_BYTES, rows_module.BLOCK_ROWS = keep_bytes, block_rows
        return engine.evaluate(graph)

    return run


def settings(engine: Engine, graph: GraphBatch, repeat: int) -> dict[str, float]:
    """Times with activations kept or computed again, and with other sizes of blocks, ms."""
    keep, block = engine_module.KEEP_BYTES, rows_module.BLOCK_ROWS
    variants = {
        "as shipped": with_settings(engine, graph, keep, block),
        "nothing kept": with_settings(engine, graph, 0, block),
    } | {f"blocks of {size}": with_settings(engine, graph, keep, size) for size in (512, 1024, 4096, 8192)}
    try:
        return compare(variants, repeat)
    finally:
        engine_module.KEEP_BYTES, rows_module.BLOCK_ROWS = keep, block


def central_op(repeat: int) -> dict[str, float]:
    """`segment_sum` as a gather of three rows and as a reduction of 64 rows, beside index_select and index_add_, ms."""
    random = torch.Generator().manual_seed(0)
    table = torch.randn(ROWS, 128, generator=random)
    index = torch.randint(0, ROWS, (ROWS, 3), generator=random, dtype=torch.int32)
    three, columns = torch.arange(0, 3 * ROWS + 1, 3, dtype=torch.int32), index.T.contiguous()
    flat, order = index.reshape(-1), torch.arange(ROWS, dtype=torch.int32)
    ptr = torch.arange(0, ROWS + 1, 64, dtype=torch.int32)
    owner, narrow = order // 64, table[:, :64].contiguous()
    variants: dict[str, Callable[[], object]] = {
        "gather: segment_sum": lambda: segment_sum.forward(table, flat, three),
        "gather: index_select and add": lambda: (
            table.index_select(0, columns[0]) + table.index_select(0, columns[1]) + table.index_select(0, columns[2])
        ),
        "reduce: segment_sum": lambda: segment_sum.forward(narrow, order, ptr),
        "reduce: index_add_": lambda: torch.zeros(ROWS // 64, 64).index_add_(0, owner, narrow),
    }
    return compare(variants, 20 * repeat)


def measure(name: str, atoms: Atoms, repeat: int) -> list[dict[str, Any]]:
    engine, graph = Engine(load_checkpoint("0.3.0")), build_batch([atoms], Cutoffs())
    return [
        {"what": "share of time", "system": name, "case": case, "value": value}
        for case, value in shares(engine, graph).items()
    ] + [
        {"what": "evaluation, ms", "system": name, "case": case, "value": value}
        for case, value in settings(engine, graph, repeat).items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Where the time of one evaluation goes.")
    parser.add_argument("--quick", action="store_true", help="LiMnO2-64 alone, nothing is written")
    options = parser.parse_args()
    repeat = 3 if options.quick else 7
    names = ["LiMnO2-64"] if options.quick else ["LiMnO2-8", "LiMnO2-64", "LiMnO2-512"]
    rows = [row for name, atoms in chosen(names).items() for row in measure(name, atoms, repeat)]
    rows += [
        {"what": "central op, ms", "system": f"{ROWS} rows", "case": case, "value": value}
        for case, value in central_op(repeat).items()
    ]
    for row in rows:
        print(f"{row['what']:16} {row['system']:12} {row['case']:36} {row['value']:10.3f}")
    if not options.quick:
        print(f"written: {write_result('engine', rows)}")


if __name__ == "__main__":
    main()
