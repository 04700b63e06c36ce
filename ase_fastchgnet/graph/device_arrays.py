"""What the graph on the device is made with: copies to and from the host, and selections of known size.

A device works through its queue while the host goes on; whenever the host wants to know a number, it waits for the
queue to run dry. So numbers are asked for in one place, `read`, and what follows from them is written without
operations whose result has a size that only the device knows (`nonzero`, a mask as an index).
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """`array` on the device, by way of page-locked memory so that the host does not wait; on the CPU, a view of it."""
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor.to(device)
    # torch hands the page-locked memory out again only when the copy from it is done
    return tensor.pin_memory().to(device, non_blocking=True)


def pack(*values: Tensor) -> Tensor:
    """Scalars and rows of numbers in one row, float64: exact for integers up to 2⁵³."""
    return torch.cat([value.reshape(-1).to(torch.float64) for value in values])


def read(row: Tensor) -> list[float]:
    """The numbers of a row; the host waits for them."""
    numbers: list[float] = row.tolist()
    return numbers


def count_before(mask: Tensor) -> Tensor:
    """How many True stand before each place of `mask` (n + 1,) int32: the new number of what is kept."""
    count = torch.zeros(len(mask) + 1, dtype=torch.int32, device=mask.device)
    torch.cumsum(mask, 0, dtype=torch.int32, out=count[1:])
    return count


def places(mask: Tensor, before: Tensor, total: int) -> Tensor:
    """Where `mask` is True (total,) int32, ascending, given count_before(mask) and the number of True.

    Every place writes its own number, those that are not wanted into one row too many.
    """
    target = torch.where(mask, before[:-1], total).long()
    found = torch.empty(total + 1, dtype=torch.int32, device=mask.device)
    found.scatter_(0, target, torch.arange(len(mask), dtype=torch.int32, device=mask.device))
    return found[:total]
