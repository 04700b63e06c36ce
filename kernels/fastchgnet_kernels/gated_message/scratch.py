"""Memory for intermediates: the same every time, so that it stays in cache and costs no page faults."""

import threading
from collections.abc import Hashable
from typing import Self

import torch
from torch import Tensor

HELD_BYTES = 64 * 2**20  # larger buffers are not held on to between calls
TOTAL_BYTES = 576 * 2**20  # of all buffers of a thread; beyond it they are let go and those in use are made again


class Scratch:
    """One buffer for each name, growing to the largest size asked for; valid until the name is asked for again."""

    def __init__(self, buffers: dict[Hashable, Tensor] | None = None, prefix: tuple[Hashable, ...] = ()) -> None:
        self._buffers = {} if buffers is None else buffers
        self._prefix = prefix

    def __call__(self, name: str, rows: int, columns: int, like: Tensor) -> Tensor:
        """An uninitialised (rows, columns) tensor for the intermediate called `name`, of the kind of `like`."""
        size = rows * columns
        if size * like.itemsize > HELD_BYTES:
            return like.new_empty(rows, columns)
        key = (*self._prefix, name, like.dtype, like.device)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.shape[0] < size:
            if sum(held.nbytes for held in self._buffers.values()) + size * like.itemsize > TOTAL_BYTES:
                self._buffers.clear()  # whoever still works with one holds it by its own tensor
            # Made outside of inference mode, so that the buffer serves callers in either mode.
            with torch.inference_mode(False):
                buffer = self._buffers[key] = torch.empty(size, dtype=like.dtype, device=like.device)
        return buffer[:size].view(rows, columns)

    def under(self, *prefix: Hashable) -> Self:
        """The same memory, with `prefix` before every name."""
        return type(self)(self._buffers, (*self._prefix, *prefix))


_local = threading.local()


def thread_scratch() -> Scratch:
    """This thread's scratch. Whoever hands out what lies in it must be done with it before another op runs."""
    if not hasattr(_local, "scratch"):
        _local.scratch = Scratch()
    found: Scratch = _local.scratch
    return found
