"""Times the gated ops in blocks or tiles of any size, tunes them by that, and keeps the winners."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from ase_fastchgnet.model.engine.gated_ops import Op
from fastchgnet_kernels import on_device
from fastchgnet_kernels.gated_message import rows as rows_module
from fastchgnet_kernels.io_model import block_rows, tile_choice
from fastchgnet_kernels.io_model.candidates import block_candidates
from fastchgnet_kernels.io_model.device import this_cpu, this_gpu
from fastchgnet_kernels.io_model.gpu_tiles import tile_candidates
from fastchgnet_kernels.io_model.store import save
from fastchgnet_kernels.io_model.tuner import Tuning, tune

log = logging.getLogger(__name__)

ROUNDS = 25  # times that each choice is measured
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
    """Seconds of `op` for each of the choices; None for one that cannot run.

    A machine is faster at one moment than at another, by more than choices differ. So each is timed in turn with one
    of them, over and over, and compared by the median of the ratios.
    """
    clock = _clock(device)
    if device.type == "cpu":
        torch.empty(HEAP_BYTES, dtype=torch.uint8)  # as in a process that has computed something: no page is new
    able = [choice for choice in choices if _can_run(op, device, choice)]
    standards: list[float] = []  # seconds of the first
    ratios: dict[Any, list[float]] = {choice: [] for choice in able}
    for turn in range(rounds):
        middle = {choice: median(found) for choice, found in ratios.items() if turn >= 3}
        for choice in able:
            if turn >= 3 and middle[choice] > HOPELESS * min(middle.values()):
                continue
            standard = _time(op, device, able[0], clock)
            standards.append(standard)
            ratios[choice].append(1.0 if choice == able[0] else _time(op, device, choice, clock) / standard)
    return [median(ratios[choice]) * median(standards) if choice in ratios else None for choice in choices]


def _clock(device: torch.device) -> Callable[[], float]:
    """With one thread of a CPU the processor's time, in which other processes have no share."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def _can_run(op: Op, device: torch.device, choice: Any) -> bool:
    """Tries it, which also compiles what has to be compiled."""
    try:
        _time(op, device, choice, time.perf_counter)
    except Exception as error:
        if not type(error).__module__.startswith("triton."):
            raise
        log.info("%s cannot run: %s", choice, error)  # it needs more shared memory than there is
        return False
    return True


def _time(op: Op, device: torch.device, choice: Any, clock: Callable[[], float]) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else _nothing
    with on_device(device), _chosen(device, choice):
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
