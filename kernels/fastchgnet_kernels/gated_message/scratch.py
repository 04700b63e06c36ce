"""Memory for the intermediates of one block of rows."""

from typing import Protocol

import torch
from torch import Tensor


class Allocate(Protocol):
    """Gives an uninitialised (rows, columns) tensor for the intermediate called `name`, like `like`."""

    def __call__(self, name: str, rows: int, columns: int, like: Tensor) -> Tensor: ...


def fresh(name: str, rows: int, columns: int, like: Tensor) -> Tensor:
    """New memory every time, for intermediates that are kept."""
    return like.new_empty(rows, columns)


class Scratch:
    """The same memory every time, so that a block's intermediates stay in cache and cost no page faults.

    An intermediate is valid until the next one of the same name. Not for two threads at once: one call of an op makes
    its own.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, rows: int, columns: int, like: Tensor) -> Tensor:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape[0] < rows * columns:
            buffer = self._buffers[name] = torch.empty(rows * columns, dtype=like.dtype, device=like.device)
        return buffer[: rows * columns].view(rows, columns)
