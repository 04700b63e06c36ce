"""Who works: this process, or a worker process for each device."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Literal

from .pool import WorkerPool
from .scheduler import Submits

Devices = Literal["auto"] | int | Sequence[str] | None

DEVICE_VARIABLE = "FASTCHGNET_DEVICE"  # what a calculator without a device of its own looks at
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
FOREIGN = 100  # chunks that an executor of which nothing is known holds at a time
MANY = 32  # chunks to make at least, of however few items, for an executor that holds many


@contextmanager
def crew(devices: Devices, executor: Submits | None = None) -> Iterator[tuple[Submits, int]]:
    """An executor and how many chunks it should hold at a time.

    None: this process; a number: so many worker processes that share the cores; a list of "cuda:N" or "cpu": a process
    for each; "auto": one for each CUDA device, else one for each core.  ValueError for anything else, and if there are
    both devices and an executor.
    """
    check_crew(devices, executor)
    if executor is not None:
        yield executor, FOREIGN
        return
    if devices is None:
        yield Here(), 1
        return
    pool = WorkerPool(environments(devices))
    try:
        yield pool, 2 * pool.n_workers  # one under way and one waiting for each
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def check_crew(devices: Devices, executor: Submits | None) -> None:
    """ValueError if nobody can work like this; nothing is started."""
    if devices is not None and executor is not None:
        raise ValueError("devices and executor are two ways to say where to work: give one")
    if devices is not None:
        environments(devices)


class Here:
    """An executor that does the work at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> "Future[Any]":
        """The finished call; what it raises is in the future, but for an interruption."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def environments(devices: Devices) -> list[dict[str, str]]:
    """The environment variables of each worker: its device, and its share of the cores."""
    names = _names(devices)
    threads = str(max(1, n_cores() // len(names)))
    return [{DEVICE_VARIABLE: name, **dict.fromkeys(THREAD_VARIABLES, threads)} for name in names]


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _names(devices: Devices) -> list[str]:
    if devices == "auto":
        import torch

        n_cuda = torch.cuda.device_count()
        return [f"cuda:{n}" for n in range(n_cuda)] if n_cuda else ["cpu"] * n_cores()
    if isinstance(devices, int) and not isinstance(devices, bool) and devices > 0:
        return ["cpu"] * devices
    if isinstance(devices, Sequence) and not isinstance(devices, str) and devices:
        return list(devices)
    raise ValueError(
        f"devices={devices!r}: expected None, 'auto', a number of worker processes, or a list such as "
        "['cuda:0', 'cuda:1']"
    )
