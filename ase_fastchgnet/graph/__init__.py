"""positions → GraphBatch."""

from .batch import GraphBatch, concatenate, isolated_atoms
from .build import build_batch
from .caches import AnyCache, neighbor_cache
from .device_cache import DeviceNeighborCache
from .neighbors import Cutoffs
from .skin import NeighborCache

__all__ = [
    "AnyCache",
    "Cutoffs",
    "DeviceNeighborCache",
    "GraphBatch",
    "NeighborCache",
    "build_batch",
    "concatenate",
    "isolated_atoms",
    "neighbor_cache",
]
