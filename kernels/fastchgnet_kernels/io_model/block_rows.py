"""How many rows a block of the CPU path has: the measured winner for this machine if there is one, else the model's."""

from functools import lru_cache

import torch

from fastchgnet_kernels.io_model import store
from fastchgnet_kernels.io_model.candidates import BLOCK_ROWS, block_candidates, settled
from fastchgnet_kernels.io_model.device import Cpu, this_cpu
from fastchgnet_kernels.io_model.gated import GatedShape


def bucket(messages: int) -> int:
    """The number of messages that stands for all that share a measured winner: the next power of two.

    Beyond the largest block, more messages are more blocks of the same.
    """
    return min(1 << max(messages - 1, BLOCK_ROWS[0] - 1).bit_length(), 2 * BLOCK_ROWS[-1])


def rounded(messages: int) -> int:
    """The next number of four binary digits and zeros behind them: for these alone the model is asked."""
    step = 1 << max((messages - 1).bit_length() - 4, 0)
    return -(-messages // step) * step


def key_of(shape: GatedShape, cpu: Cpu) -> store.Key:
    """Under which the winner for `shape` is kept."""
    row = f"k{shape.gathered} x{'yes' if shape.dense else 'no'} l{shape.layers} d{shape.width} b{shape.itemsize}"
    device = f"{cpu.name}, {cpu.threads} threads"
    return store.Key(device, shape.op, f"{bucket(shape.messages)} of {row}", store.version())


def best_block_rows(
    messages: int, summed: bool, gathered: int, dense: int, layers: int, width: int, itemsize: int
) -> int:
    """Rows of a block: what was measured for this bucket of messages and as many threads, else the model's choice.

    Nothing is measured here, and what is found is remembered until `forget`.
    """
    threads = torch.get_num_threads()
    return _best(rounded(messages), summed, gathered, dense, layers, width, itemsize, threads)


@lru_cache(maxsize=1024)
def _best(
    messages: int, summed: bool, gathered: int, dense: int, layers: int, width: int, itemsize: int, threads: int
) -> int:
    shape = GatedShape(messages, int(summed), 0, gathered, dense, int(summed), layers, width, itemsize)
    cpu = this_cpu(threads)
    stored = store.load(key_of(shape, cpu))
    if isinstance(stored, int) and stored in BLOCK_ROWS:
        return stored
    return modelled_rows(shape, cpu)


def modelled_rows(shape: GatedShape, cpu: Cpu) -> int:
    """What is used unmeasured: the model's choice."""
    return settled(block_candidates(shape._replace(messages=rounded(shape.messages)), cpu), cpu.threads)


def forget() -> None:
    """Look at the disk again: a winner was written."""
    _best.cache_clear()
