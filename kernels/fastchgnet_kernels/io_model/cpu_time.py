"""Predicted time of the CPU path by the rows of a block: calls, passes, products, and what leaves the caches."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastchgnet_kernels.io_model.blocks import Call, Columns, Trace, traces
from fastchgnet_kernels.io_model.device import Cpu
from fastchgnet_kernels.io_model.gated import GatedShape


class BlockCost(NamedTuple):
    """Of a whole op, forward and backward with recomputation."""

    seconds: float
    least_seconds: float  # if nothing that a block has touched left the cache: what no cache can make faster
    moved_bytes: float  # between a core's caches and memory
    least_bytes: float  # of it, what is new in every block


def block_costs(sizes: Sequence[int], shape: GatedShape, cpu: Cpu) -> list[BlockCost]:
    """Of `shape` in blocks of each of `sizes` messages.

    A call takes as long as the slowest of its arithmetic and its transfers, which overlap, and a constant besides.
    """
    rows = np.clip(np.array(sizes, dtype=np.float64), 1, max(shape.messages, 1))
    blocks = np.ceil(shape.messages / rows)
    per_core = np.ceil(rows / _cores(rows * shape.width, cpu)) * shape.itemsize
    total = np.zeros((4, len(sizes)))
    for trace in traces(shape):
        fitting = np.stack([cpu.l2 / per_core, cpu.l3 / per_core, np.full(len(sizes), np.inf)])
        near, far, new = shape.itemsize * trace.moved(fitting).transpose(1, 0, 2)
        busy = np.array([_busy(call, trace, shape, cpu) for call in trace.calls])[:, None]
        cores = np.array([_cores(rows * trace.widest(call), cpu) for call in trace.calls])
        seconds = np.maximum(busy, np.maximum(near / cpu.l3_rate, far / cpu.memory_rate)) / cores
        least = np.maximum(busy, new / cpu.memory_rate) / cores
        total += shape.messages * np.array([part.sum(0) for part in (seconds, least, far, new)])
        total[:2] += blocks * len(trace.calls) * cpu.call_seconds
    return [BlockCost(*(float(value) for value in column)) for column in total.T]


def _busy(call: Call, trace: Trace, shape: GatedShape, cpu: Cpu) -> float:
    """Seconds a row of a call on one core, its arrays in the cache."""
    moved = sum(trace.columns[name] for name in (*call.reads, *call.writes))
    columns = trace.widest(call)
    wide = shape.itemsize / 4  # vectors hold fewer numbers of more bytes
    seconds = moved * shape.itemsize / cpu.cache_rate
    if call.kind == "product":
        seconds += 2 * call.inner * call.outer * wide / cpu.product_rate
    if call.kind == "exp":
        seconds += columns * wide * cpu.exp_seconds
    if call.kind == "norm":
        seconds += columns * wide * cpu.norm_seconds
    return seconds


def _cores(elements: Columns, cpu: Cpu) -> Columns:
    """Threads that torch divides a pass over so many elements among."""
    return np.clip(np.ceil(elements / cpu.grain), 1, cpu.threads)
