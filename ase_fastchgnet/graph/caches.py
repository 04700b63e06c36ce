"""Which cache builds graphs for a device: chosen here and nowhere else."""

from __future__ import annotations

import torch

from .device_cache import DeviceNeighborCache
from .neighbors import Cutoffs
from .skin import NeighborCache

AnyCache = NeighborCache | DeviceNeighborCache


def neighbor_cache(cutoffs: Cutoffs, skin: float = 0.0, *, device: torch.device | str = "cpu") -> AnyCache:
    """An empty cache for graphs wanted on `device`: a CUDA device finds neighbours itself, for others vesin does.

    Graphs have the same bits either way; those that vesin is used for are on the CPU, still to be sent.
    """
    if torch.device(device).type == "cuda":
        return DeviceNeighborCache(cutoffs, skin, device=device)
    return NeighborCache(cutoffs, skin)
