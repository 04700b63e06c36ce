"""The time of each kernel of an evaluation, beside what its arguments alone would take to be moved."""

import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

import fastchgnet_kernels
from ase_fastchgnet.evaluation import load_backend
from ase_fastchgnet.graph import neighbor_cache
from ase_fastchgnet.model.engine.gated_ops import Op, gated_ops
from ase_fastchgnet.model.engine.weights import EngineWeights, pack
from benchmarks._gpu_setting import WARM_UP, Row, Setting, structure
from fastchgnet_kernels._launch import Tile, runs_kernels
from fastchgnet_kernels.io_model.device import Gpu, this_gpu
from fastchgnet_kernels.io_model.gated import GatedShape
from fastchgnet_kernels.io_model.gpu_time import tile_cost
from fastchgnet_kernels.io_model.tile_choice import best_tile

SYSTEMS = ("LiMnO2-64", "LiMnO2-10648")
FORWARD = {"AtomConv": "message_forward_kernel", "BondConv": "message_forward_kernel"}
FORWARD |= {"AngleUpdate": "update_forward_kernel"}  # what the model of a tile's time is a model of
# Arguments that are read and written
ADDS_TO = {"update_forward_kernel": "out", "bond_basis_backward_kernel": "grad_r"}


class Spent(NamedTuple):
    """By the kernels of one name, in one evaluation."""

    launches: int
    microseconds: float


def measure(setting: Setting) -> Iterator[Row]:
    """A row for each kernel, those that take longest first."""
    backend = load_backend(device=str(setting.device))
    gpu = this_gpu(setting.device.index or 0) if setting.device.type == "cuda" else None
    for name in setting.names(*SYSTEMS):
        atoms = structure(name)
        graph = neighbor_cache(backend.cutoffs, device=setting.device).graph(atoms).to(backend.device)
        for _ in range(WARM_UP):
            backend.evaluate(graph)
        with arguments() as moved:
            backend.evaluate(graph)
        setting.wait()
        spent = profiled(partial(backend.evaluate, graph), setting)
        if not spent:
            raise RuntimeError(
                "the profiler has seen no kernel; it needs CUPTI, and no other profiler at the same time"
            )
        weights = pack(backend.checkpoint, backend.dtype, str(backend.device))
        predicted = {} if gpu is None else predictions(gated_ops(graph, weights), weights, gpu, best_tile)
        total = sum(kernel.microseconds for kernel in spent.values())
        for kernel, found in sorted(spent.items(), key=lambda item: -item[1].microseconds):
            row = {"system": name, "atoms": len(atoms), "kernel": kernel, **found._asdict()}
            row["share"] = found.microseconds / total
            yield row | floor(moved.get(kernel), found, gpu) | predicted.get(kernel, {})


def floor(moved_bytes: int | None, spent: Spent, gpu: Gpu | None) -> Row:
    """What the memory needs to read or write every argument once; nothing for kernels that are not this package's."""
    if moved_bytes is None:
        return {}
    row: Row = {"moved_bytes": moved_bytes}
    if gpu is not None:
        least = 1e6 * moved_bytes / gpu.memory_rate
        row |= {"floor_us": least, "times_floor": spent.microseconds / least}
    return row


def predictions(
    ops: Sequence[Op], weights: EngineWeights, gpu: Gpu, tile_of: Callable[[GatedShape], Tile]
) -> dict[str, Row]:
    """What the model of a tile says of the forward kernels of all blocks, and the least it holds for possible, µs."""
    blocks = {"AtomConv": weights.atom_convs, "BondConv": weights.bond_convs, "AngleUpdate": weights.angle_updates}
    found: dict[str, Row] = {}
    for op in ops:
        cost, n = tile_cost(tile_of(op.shape), op.shape, gpu), len(blocks[op.name])
        row = found.setdefault(FORWARD[op.name], {"model_us": 0.0, "model_least_us": 0.0})
        row["model_us"] += 1e6 * n * cost.seconds
        row["model_least_us"] += 1e6 * n * cost.least_seconds
    return found


@contextmanager
def arguments() -> Iterator[Counter[str]]:
    """Counts, by kernel, the bytes of the tensors that this package's kernels are called with."""
    moved: Counter[str] = Counter()
    hooks = [(kernel, partial(_count, moved, kernel, name)) for name, kernel in kernels().items()]
    for kernel, hook in hooks:
        kernel.add_pre_run_hook(hook)
    try:
        yield moved
    finally:
        for kernel, hook in hooks:
            kernel.pre_run_hooks.remove(hook)


def kernels() -> dict[str, Any]:
    """This package's Triton kernels by name; none where Triton does not run."""
    if not (torch.cuda.is_available() or runs_kernels(torch.device("cpu"))):
        return {}
    found: dict[str, Any] = {}
    for op in pkgutil.iter_modules(fastchgnet_kernels.__path__):
        folder = importlib.import_module(f"fastchgnet_kernels.{op.name}")
        if op.ispkg and any(part.name == "kernel" for part in pkgutil.iter_modules(folder.__path__)):
            module = importlib.import_module(f"fastchgnet_kernels.{op.name}.kernel")
            found |= {name: value for name, value in vars(module).items() if name.endswith("_kernel")}
    return found


def _count(moved: Counter[str], kernel: Any, name: str, *args: Any, **kwargs: Any) -> None:
    given = {**dict(zip(kernel.arg_names, args, strict=False)), **kwargs}
    tensors = {x.data_ptr(): x for x in given.values() if isinstance(x, torch.Tensor)}
    moved[name] += sum(x.nbytes for x in tensors.values())
    if name in ADDS_TO:
        moved[name] += given[ADDS_TO[name]].nbytes


def profiled(run: Callable[[], object], setting: Setting) -> dict[str, Spent]:
    """Each kernel of one run by name; on a CPU, each call of torch."""
    cuda = setting.device.type == "cuda"
    activity = ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU
    with profile(activities=[activity]) as trace:
        run()
        setting.wait()
    spent: dict[str, Spent] = {}
    for event in trace.events() or []:
        if event.device_type.name != ("CUDA" if cuda else "CPU"):
            continue
        before = spent.get(event.name, Spent(0, 0.0))
        took = event.time_range.elapsed_us() if cuda else event.self_cpu_time_total
        spent[event.name] = Spent(before.launches + 1, before.microseconds + took)
    return spent
