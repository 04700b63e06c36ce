"""list[Atoms] → GraphBatch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ase import Atoms

from .batch import GraphBatch, concatenate
from .caches import AnyCache, neighbor_cache
from .neighbors import Cutoffs


def build_batch(
    structures: Sequence[Atoms],
    cutoffs: Cutoffs,
    *,
    caches: Sequence[AnyCache] | None = None,
    device: torch.device | str = "cpu",
) -> GraphBatch:
    """The graphs of all structures, laid end to end; caches[k] carries the neighbours of structure k along."""
    if len(structures) == 0:
        raise ValueError("cannot build a batch of no structures; pass at least one")
    if caches is None:
        caches = [neighbor_cache(cutoffs, device=device, among_others=atoms) for atoms in structures]
    if len(caches) != len(structures):
        raise ValueError(f"one cache per structure is needed, got {len(caches)} for {len(structures)} structures")
    for system, cache in enumerate(caches):
        if cache.cutoffs != cutoffs:
            raise ValueError(f"cache {system} was made for {cache.cutoffs}, but the batch is built for {cutoffs}")
    graphs = [cache.graph(atoms, system) for system, (atoms, cache) in enumerate(zip(structures, caches, strict=True))]
    return concatenate(graphs, device)
