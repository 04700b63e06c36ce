"""The processes that `torchrun` starts: who is who, on which device, and sums over all of them.

`torchrun --nproc-per-node N -m ase_fastchgnet train …` runs N processes; without torchrun there is one, and every sum
is what it was.  Processes talk through NCCL between GPUs and through gloo between CPUs.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


class StoppedElsewhere(RuntimeError):
    """Another process, which says what is wrong, cannot go on, and so this one cannot."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all that train together."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in `values` itself."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """The values of all processes on the main one; elsewhere this one's alone."""
        if self.size == 1:
            return [value]
        found: list[T | None] | None = [None] * self.size if self.is_main else None
        torch.distributed.gather_object(value, found)
        return [value] if found is None else cast(list[T], found)

    def made_once(self, make: Callable[[], T]) -> T:
        """What `make` returns, which the main process calls; if it fails, the others end with StoppedElsewhere."""
        found: list[Any] = [None]
        if not self.is_main:
            torch.distributed.broadcast_object_list(found, src=0)
            if found[0] is None:
                raise StoppedElsewhere(f"process {self.rank} ends, because process 0 stopped, which says why")
            return cast(T, found[0])
        try:
            found[0] = make()
        finally:
            if self.size > 1:
                torch.distributed.broadcast_object_list(found, src=0)
        return cast(T, found[0])

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()

    def wrap(self, network: torch.nn.Module) -> torch.nn.Module:
        """A module whose gradients are averaged over all processes in every backward pass."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network, gradient_as_bucket_view=True)


@contextmanager
def ranks(device: str | None = None) -> Iterator[Ranks]:
    """The process group that torchrun's environment describes, or this process alone; left at the end.

    `device`: "cpu", "cuda" (of several processes, each has the GPU of its local rank) or "cuda:N"; None: CUDA if there
    is one.  RuntimeError if it is not there.
    """
    size, rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", "1"), ("RANK", "0")))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")) if size > 1 else None)
    if size == 1:
        yield Ranks(0, 1, chosen)
        return
    torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", rank=rank, world_size=size)
    try:
        with warnings.catch_warnings():
            # About gradients of matrices of one row, whose strides mean nothing.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            yield Ranks(rank, size, chosen)
    finally:
        torch.distributed.destroy_process_group()


def _device(name: str | None, local_rank: int | None) -> torch.device:
    chosen = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if chosen.type == "cpu":
        return chosen
    if chosen.type != "cuda":
        raise ValueError(f"device={name!r}: expected 'cpu', 'cuda' or 'cuda:N'")
    index = local_rank or 0 if chosen.index is None else chosen.index
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise RuntimeError(f"device 'cuda:{index}' is not available: torch finds {count} CUDA device(s)")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)
