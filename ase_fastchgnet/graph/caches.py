"""Which cache builds graphs for a device: chosen here and nowhere else."""

from __future__ import annotations

import torch
from ase import Atoms

from .device_cache import DeviceNeighborCache
from .neighbors import Cutoffs
from .skin import NeighborCache

AnyCache = NeighborCache | DeviceNeighborCache


# Atoms of a structure among others. The device's search is 250 launches, over a millisecond, whatever the size; vesin
# and numpy take that long for some hundred atoms. The best number has not been measured.
SMALL = 256


def neighbor_cache(
    cutoffs: Cutoffs, skin: float = 0.0, *, device: torch.device | str = "cpu", among_others: Atoms | None = None
) -> AnyCache:
    """An empty cache for graphs wanted on `device`: a CUDA device finds neighbours itself, for others vesin does.

    So it does for a structure of few atoms that goes into a batch, `among_others`. Graphs have the same bits either
    way; those that vesin is used for are on the CPU, still to be sent.
    """
    small = isinstance(among_others, Atoms) and len(among_others) <= SMALL  # what is no Atoms, the cache refuses
    if torch.device(device).type == "cuda" and not small:
        return DeviceNeighborCache(cutoffs, skin, device=device)
    return NeighborCache(cutoffs, skin)
