"""How much memory torch's tensors have, and had at most, while something runs."""

import gc
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts every storage, once, from the operation that makes it until nobody holds it; with a `limit`, as a device.

    What was there before is not counted, but for the tensors `given`.  Kernels and libraries may use memory inside of
    an operation, which is not seen.  With `collect`, what only cycles of Python objects hold is taken to be gone:
    Triton's interpreter makes some, where a launch on a device makes none.
    """

    def __init__(self, given: Iterable[Tensor] = (), limit: int | None = None, *, collect: bool = False) -> None:
        super().__init__()
        self.now = self.peak = 0  # bytes
        self.limit = limit
        self.collect = collect
        self._known: dict[int, weakref.finalize] = {}
        for tensor in given:
            self._count(tensor)

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and not leaf.is_meta:  # which have a shape, and no memory
                self._count(leaf)
        if self.limit is not None and self.now > self.limit:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {self.now} bytes of {self.limit}")
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known[key] = weakref.finalize(storage, self._forget, key, size)
            self.now += size
            if self.collect and self.now > self.peak:
                gc.collect(0)
            self.peak = max(self.peak, self.now)

    def _forget(self, key: int, size: int) -> None:
        del self._known[key]
        self.now -= size
