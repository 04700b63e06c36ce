"""positions → GraphBatch."""

from .batch import GraphBatch, concatenate, isolated_atoms
from .build import build_batch
from .neighbors import Cutoffs
from .skin import NeighborCache

__all__ = ["Cutoffs", "GraphBatch", "NeighborCache", "build_batch", "concatenate", "isolated_atoms"]
