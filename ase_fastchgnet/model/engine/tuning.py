"""Times the gated ops in blocks or tiles of any size, tunes them by that, and keeps the winners."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ase_fastchgnet.model.engine.gated_ops import Op
from fastchgnet_kernels.gated_message import rows as rows_module
from fastchgnet_kernels.io_model import block_rows, tile_choice
from fastchgnet_kernels.io_model.candidates import block_candidates
from fastchgnet_kernels.io_model.device import this_cpu, this_gpu
from fastchgnet_kernels.io_model.gpu_tiles import tile_candidates
from fastchgnet_kernels.io_model.store import save
from fastchgnet_kernels.io_model.tuner import Tuning, tune

log = logging.getLogger(__name__)

ROUNDS = 11  # times that each choice is measured; the fastest counts
HOPELESS = 1.3  # times as slow as the best after three rounds: measured no further
HEAP_BYTES = 31 * 2**20  # malloc gives back to the system what is larger than all that it has seen freed, up to 32 MiB


def tune_op(op: Op, device: torch.device, *, exhaustive: bool = False, rounds: int = ROUNDS) -> Tuning[Any]:
    """The fastest of what `op` can be cut up into on `device`, of a short list or of everything. Nothing is kept."""
    if device.type == "cuda":
        tiles = tile_candidates(op.shape, this_gpu(device.index or 0))
        return tune(tiles, lambda some: times(op, device, some, rounds), exhaustive=exhaustive)
    blocks = block_candidates(op.shape, this_cpu(torch.get_num_threads()))
    return tune(blocks, lambda some: times(op, device, some, rounds), exhaustive=exhaustive)


def keep(op: Op, device: torch.device, choice: Any) -> None:
    """Writes the winner, which the op uses from then on."""
    if device.type == "cuda":
        save(tile_choice.key_of(op.shape, this_gpu(device.index or 0)), list(choice))
        tile_choice.forget()
    else:
        save(block_rows.key_of(op.shape, this_cpu(torch.get_num_threads())), choice)
        block_rows.forget()


@torch.inference_mode()
def times(op: Op, device: torch.device, choices: Sequence[Any], rounds: int = ROUNDS) -> list[float | None]:
    """Seconds of `op` for each of the choices, the least of several rounds, in each of which all have their turn.

    With one thread of a CPU it is the processor's time, in which other processes have no share.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    torch.empty(HEAP_BYTES, dtype=torch.uint8)  # as in a process that has computed something: no page is new
    best: list[float | None] = [float("inf")] * len(choices)
    for turn in range(rounds + 1):  # the first warms up
        for i, choice in enumerate(choices):
            least = best[i]
            fastest = min((seconds for seconds in best if seconds is not None), default=0.0)
            if least is None or (turn > 3 and least > HOPELESS * fastest):
                continue
            try:
                seconds = _time(op, device, choice, clock)
            except Exception as error:
                if not type(error).__module__.startswith("triton."):
                    raise
                log.info("%s cannot run: %s", choice, error)  # it needs more shared memory than there is
                best[i] = None
                continue
            if turn:
                best[i] = min(least, seconds)
    return best


def _time(op: Op, device: torch.device, choice: Any, clock: Callable[[], float]) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else _nothing
    with _chosen(device, choice):
        wait()
        start = clock()
        op.run()
        wait()
        return clock() - start


def _nothing() -> None:
    """A CPU is done when it returns."""


@contextmanager
def _chosen(device: torch.device, choice: Any) -> Iterator[None]:
    """Every gated op is cut up as `choice` says."""
    before = rows_module.BLOCK_ROWS, rows_module.TILE
    try:
        if device.type == "cuda":
            rows_module.TILE = choice
        else:
            rows_module.BLOCK_ROWS = choice
        yield
    finally:
        rows_module.BLOCK_ROWS, rows_module.TILE = before
