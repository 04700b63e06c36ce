"""The tuner's choice of tiles against exhaustive search, and against the default and the model's favourite."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import torch

from ase_fastchgnet.evaluation import load_backend
from ase_fastchgnet.graph import neighbor_cache
from ase_fastchgnet.model.engine.gated_ops import Op, gated_ops
from ase_fastchgnet.model.engine.tuning import ROUNDS, times, tune_op
from ase_fastchgnet.model.engine.weights import pack
from benchmarks._gpu_setting import Row, Setting, structure
from fastchgnet_kernels._launch import default_tile
from fastchgnet_kernels.io_model.device import this_gpu
from fastchgnet_kernels.io_model.gpu_tiles import tile_candidates

SYSTEMS = ("LiMnO2-64", "LiMnO2-10648")
MOST_LOSS, MOST_SHARE = 0.05, 0.2  # slower than the best, and of its measurements


def measure(setting: Setting) -> Iterator[Row]:
    """A row for each gated op of each system."""
    for name in setting.names(*SYSTEMS):
        for number, op in enumerate(ops(name, setting.device)):
            if setting.device.type == "cuda":
                compile_all(name, number, op, setting)
            yield {"system": name, **compare(op, setting)}


def ops(name: str, device: torch.device) -> list[Op]:
    """The gated ops of a system on the device."""
    backend = load_backend(device=str(device))
    graph = neighbor_cache(backend.cutoffs, device=device).graph(structure(name)).to(backend.device)
    return gated_ops(graph, pack(backend.checkpoint, backend.dtype, str(backend.device)))


def compile_all(name: str, number: int, op: Op, setting: Setting) -> None:
    """Fills Triton's cache on disk: a kernel takes seconds to compile, and there are hundreds, so all cores do it."""
    tiles = [candidate.choice for candidate in tile_candidates(op.shape, this_gpu(setting.device.index or 0))]
    workers = min(len(tiles), os.cpu_count() or 1)
    shares = [tiles[worker::workers] for worker in range(workers)]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(partial(run_once, name, number, str(setting.device)), shares))


def run_once(name: str, number: int, device: str, choices: list[Any]) -> int:
    """Runs the op once cut up as each of the choices; how many could run."""
    op = ops(name, torch.device(device))[number]
    return sum(seconds is not None for seconds in times(op, torch.device(device), choices, rounds=1))


def compare(op: Op, setting: Setting) -> Row:
    """What the tuner chose, what exhaustive search found, and what all took."""
    rounds = 3 if setting.quick else ROUNDS
    tuning = tune_op(op, setting.device, rounds=rounds)
    everything = tune_op(op, setting.device, exhaustive=True, rounds=rounds)
    seconds = {row.candidate.choice: row.seconds for row in everything.rows if row.seconds is not None}
    least, loss = min(seconds.values()), tuning.loss(everything)
    default = default_tile(torch.cuda.get_device_capability(setting.device), 4) if setting.device.type == "cuda" else 0
    model = min((row.candidate for row in everything.rows if row.candidate.choice in seconds), key=_predicted)
    return {
        "op": op.name,
        "messages": op.shape.messages,
        "chosen": tuning.best.candidate.choice,
        "best": everything.best.candidate.choice,
        "measured": tuning.n_measured,
        "measured_exhaustive": everything.n_measured,
        "loss": loss,
        "model_loss": seconds[model.choice] / least - 1,
        "default_loss": seconds[default] / least - 1 if default in seconds else None,
        "meets_bar": loss <= MOST_LOSS and tuning.n_measured <= MOST_SHARE * everything.n_measured,
        "candidates": [
            {
                "choice": row.candidate.choice,
                "predicted_ms": 1e3 * row.candidate.seconds,
                "measured_ms": None if row.seconds is None else 1e3 * row.seconds,
            }
            for row in everything.rows
        ],
    }


def _predicted(candidate: Any) -> float:
    return float(candidate.seconds)
