"""How large a structure's graph is, or may be expected to be, without building it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from vesin import NeighborList

from .neighbors import Cutoffs, search_box
from .skin import MARGIN
from .validate import check_search_cost, complete_lattice, read_geometry

SURFACE = 3.0  # Å; how far the matter of atoms next to a vacuum is taken to reach into it, both sides together
THIN = 0.03  # atoms/Å³; among what is denser there is no vacuum worth looking for


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


class RowCounts(NamedTuple):
    """Of one structure, as far as memory depends on them; there are two edges to a bond."""

    atoms: int
    candidates: int  # pairs of atoms closer than the atom cut-off and the skin, and skin.MARGIN
    bonds: int
    short: int
    angles: int


def size_of(atoms: Atoms, cutoffs: Cutoffs, system: int = 0) -> Size:
    """The numbers of edges and angles of `atoms`: distances are counted, nothing is sorted, paired or kept.

    ValueError for what cannot be evaluated; errors name it `system`.  (Atoms on one spot are not noticed.)
    """
    rows = count_rows(atoms, cutoffs, system=system)
    return Size(1, rows.atoms, 2 * rows.bonds, rows.angles)


def count_rows(atoms: Atoms, cutoffs: Cutoffs, skin: float = 0.0, *, system: int = 0) -> RowCounts:
    """All numbers that the memory for `atoms` depends on, as in `size_of`."""
    geometry = read_geometry(atoms, system)
    within = cutoffs.atom + skin + MARGIN
    box, radius = search_box(geometry.positions, complete_lattice(geometry, system), geometry.pbc, within)
    check_search_cost(box, len(geometry.positions), radius, system)
    search = NeighborList(cutoff=radius, full_list=False, n_threads=torch.get_num_threads())
    i, j, image, distance = search.compute(geometry.positions, box, True, "ijSd", copy=False)
    real = distance < within
    if not geometry.pbc.all():
        real &= ~image[:, ~geometry.pbc].any(axis=1)
    is_short = real & (distance < cutoffs.bond)
    ends = np.concatenate([i[is_short], j[is_short]]).astype(np.int64)
    degree = np.bincount(ends, minlength=1)
    return RowCounts(
        atoms=len(geometry.positions),
        candidates=int(real.sum()),
        bonds=int((real & (distance < cutoffs.atom)).sum()),
        short=len(ends) // 2,
        angles=int((degree * (degree - 1)).sum()),
    )


def expected_size(atoms: Atoms, cutoffs: Cutoffs) -> Size:
    """What `size_of` would be if atoms were spread evenly over the space that they fill: far faster.

    Over 2,000 crystals the cost of an evaluation, as far as it follows from this, has a spread of 25 %.  Angles, which
    depend on the bonds of a substance, are given as many as edges, which is so on the average.  ValueError or
    ArithmeticError for what is no structure.
    """
    n = len(atoms)
    if not n:
        raise ValueError("no atoms")
    volume = abs(float(np.linalg.det(atoms.cell.array)))
    if not (atoms.pbc.all() and n > THIN * volume):
        volume = _filled_volume(atoms, cutoffs.atom)
    edges = 4 / 3 * np.pi * cutoffs.atom**3 * n / volume * n
    if not atoms.pbc.any():
        edges = min(edges, n * (n - 1))
    return Size(1, n, int(edges), int(edges))


def _filled_volume(atoms: Atoms, vacuum: float) -> float:
    """Å³; along each axis a gap between atoms that is larger than `vacuum` is left out, but for SURFACE."""
    cell = atoms.cell.complete()
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)  # between opposite faces
    filled = 1.0
    for axis, fractions in enumerate((atoms.positions @ np.linalg.inv(cell)).T):
        height = heights[axis]
        if atoms.pbc[axis]:
            places = np.sort(fractions % 1.0)
            gap = float(np.diff(places, append=places[0] + 1.0).max(initial=0.0)) * height
            filled *= height - gap + SURFACE if gap > vacuum else height
        else:
            filled *= float(np.ptp(fractions)) * height + SURFACE
    return float(filled * abs(np.linalg.det(cell)) / np.prod(heights))
