"""Fixtures for all tests."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

T = TypeVar("T")


class PoisonedMemory:
    """Runs a computation where memory that nobody has written to holds NaN (floats) or -1 (integers).

    It runs in a thread of its own, because what a thread has used before it may use again.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: list[torch.Size] = []  # of what was made so, to see that something was
        self._monkeypatch = monkeypatch

    def run(self, compute: Callable[[], T]) -> T:
        with self._monkeypatch.context() as patch, ThreadPoolExecutor(max_workers=1) as thread:
            for owner, name in [(torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")]:
                patch.setattr(owner, name, self._poisoned(getattr(owner, name)))
            return thread.submit(compute).result()

    def _poisoned(self, make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*args: Any, **kwargs: Any) -> Tensor:
            tensor = make(*args, **kwargs)
            self.shapes.append(tensor.shape)
            return tensor.fill_(torch.nan if tensor.is_floating_point() else -1)

        return made


@pytest.fixture
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> PoisonedMemory:
    return PoisonedMemory(monkeypatch)
