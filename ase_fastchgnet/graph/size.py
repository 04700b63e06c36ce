"""How large a structure's graph is, without building it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from vesin import NeighborList

from .neighbors import Cutoffs, search_box
from .validate import check_search_cost, complete_lattice, read_geometry


class Size(NamedTuple):
    """Of one structure, or of several together."""

    structures: int
    atoms: int
    edges: int
    angles: int

    @classmethod
    def total(cls, sizes: Iterable[Size]) -> Size:
        """Several added up."""
        return cls(*np.sum([(0, 0, 0, 0), *sizes], axis=0).tolist())


def size_of(atoms: Atoms, cutoffs: Cutoffs, system: int = 0) -> Size:
    """The numbers of edges and angles of `atoms`: distances are counted, nothing is sorted, paired or kept.

    ValueError for what cannot be evaluated; errors name it `system`.  (Atoms on one spot are not noticed.)
    """
    geometry = read_geometry(atoms, system)
    box, radius = search_box(geometry.positions, complete_lattice(geometry, system), geometry.pbc, cutoffs.atom)
    check_search_cost(box, len(geometry.positions), radius, system)
    search = NeighborList(cutoff=radius, full_list=True, n_threads=torch.get_num_threads())
    center, image, distance = search.compute(geometry.positions, box, True, "iSd", copy=False)
    real = distance < cutoffs.atom
    if not geometry.pbc.all():
        real &= ~image[:, ~geometry.pbc].any(axis=1)
    short = np.bincount(center[real & (distance < cutoffs.bond)].astype(np.int64), minlength=1)
    return Size(1, len(geometry.positions), int(real.sum()), int((short * (short - 1)).sum()))
