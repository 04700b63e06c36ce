"""Neighbours: vesin's half list → canonical directed edges whose pairing is known by construction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from vesin import NeighborList

from .arrays import Bools, Floats, Ints, Longs
from .batch import check_index_range

MAX_CELLS = 64  # search cells along a non-periodic axis


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """Cut-off radii in Å; an edge or a short bond is strictly shorter than its cut-off."""

    atom: float = 6.0
    bond: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.bond <= self.atom < np.inf:
            raise ValueError(f"cut-off radii must satisfy 0 < bond <= atom, got {self}")


@dataclass(frozen=True, slots=True)
class Edges:
    """Directed edges in canonical order (centre, neighbour, image), and the bonds they pair up to."""

    ptr: Ints  # (atoms + 1,) edges whose centre is atom i
    center: Ints  # (edges,)
    neighbor: Ints  # (edges,)
    image: Ints  # (edges, 3)
    bond_of_edge: Ints  # (edges,)
    edges_of_bond: Ints  # (bonds, 2) column 0 comes first

    def select(self, keep: Bools) -> Edges:
        """The edges of the bonds in `keep` (bonds,), renumbered; the order stays canonical."""
        keep_edge = keep.take(self.bond_of_edge)
        edge = np.flatnonzero(keep_edge)
        new_edge, new_bond = _count_before(keep_edge), _count_before(keep)
        return Edges(
            ptr=new_edge.take(self.ptr),
            center=self.center.take(edge),
            neighbor=self.neighbor.take(edge),
            image=self.image.take(edge, axis=0),
            bond_of_edge=new_bond.take(self.bond_of_edge.take(edge)),
            edges_of_bond=new_edge.take(self.edges_of_bond.compress(keep, axis=0)),
        )


@dataclass(frozen=True, slots=True)
class CandidateBonds:
    """All pairs closer than some radius, and what is needed to measure them again when atoms have moved."""

    edges: Edges
    center: Ints  # (bonds,) of the edge that represents the bond
    neighbor: Ints  # (bonds,)
    image: Floats  # (3, bonds)

    def squared_lengths(self, positions: Floats, cell: Floats) -> Floats:
        """|r|² of every bond (bonds,), Å².

        Elementwise operations only: a bond's value depends on nothing but its two atoms and its image,
        so it has the same bits in a fresh list and in one that has been carried along.
        """
        x = np.ascontiguousarray(positions.T)
        s, a = self.image, cell[:, :, None]
        r = x.take(self.center, axis=1)
        r -= x.take(self.neighbor, axis=1)
        r -= s[0] * a[0] + s[1] * a[1] + s[2] * a[2]
        r *= r
        squared: Floats = r[0] + r[1] + r[2]
        return squared


def search_box(positions: Floats, lattice: Floats, pbc: Bools, radius: float) -> tuple[Floats, float]:
    """A lattice (3, 3) that is repeated along all axes, and the radius to search in it.

    Rows of `lattice` along non-periodic axes are unit vectors at right angles to all others. They are made longer than
    the structure, up to MAX_CELLS radii: one atom that has flown away must not stretch the grid of search cells.
    The radius is the one given, or more where vesin 0.6 would divide by zero: it shrinks a grid of over 1e5 cells in
    proportion, and the short side of a long or flat box shrinks to no cell at all. More candidates do no harm.
    """
    span = np.ptp(positions @ lattice.T, axis=0)
    while True:
        length = np.minimum(span + 2 * radius, MAX_CELLS * radius)
        box = lattice * np.where(pbc, 1.0, length)[:, None]
        grid = np.maximum(np.trunc(heights(box) / radius), 1)
        total = grid.prod()
        if total <= 1e5 or grid.min() * np.cbrt(1e5 / total) >= 4:
            return box, radius
        radius *= 1.25


def heights(box: Floats) -> Floats:
    """Distances between opposite faces (3,) of a cell."""
    distances: Floats = 1 / np.sqrt((np.linalg.inv(box) ** 2).sum(axis=0))
    return distances


def find_candidates(positions: Floats, box: Floats, pbc: Bools, radius: float) -> CandidateBonds:
    """All pairs closer than `radius`: one row of vesin's half list gives both edges of a bond."""
    search = NeighborList(cutoff=radius, full_list=False, n_threads=torch.get_num_threads())
    pairs, image = search.compute(positions, box, True, "PS", copy=False)
    if not pbc.all():
        real = ~image[:, ~pbc].any(axis=1)  # no pair across a boundary that only the search box has
        pairs, image = pairs.compress(real, axis=0), image.compress(real, axis=0)
    check_index_range(atoms=len(positions), edges=2 * len(pairs))
    return _sort_edges(pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64), image, len(positions))


def _sort_edges(i: Longs, j: Longs, image: Ints, n_atoms: int) -> CandidateBonds:
    """Each row (i, j, image) is a bond and stands for the edges (i, j, image) and (j, i, -image)."""
    n_bonds = len(i)
    order = _canonical_order(i, j, image, n_atoms)  # of the rows as they are, then of the rows reversed
    row = np.where(order < n_bonds, order, order - n_bonds)
    sign = np.where(order < n_bonds, np.int32(1), np.int32(-1))

    edge = np.empty(2 * n_bonds, dtype=np.int32)
    edge[order] = np.arange(2 * n_bonds, dtype=np.int32)
    first, second = np.minimum(edge[:n_bonds], edge[n_bonds:]), np.maximum(edge[:n_bonds], edge[n_bonds:])
    is_first = np.zeros(2 * n_bonds, dtype=np.bool_)
    is_first[first] = True
    bond_of_row = _count_before(is_first).take(first)
    edges_of_bond = np.empty((n_bonds, 2), dtype=np.int32)
    edges_of_bond[bond_of_row, 0] = first
    edges_of_bond[bond_of_row, 1] = second

    degree = np.bincount(i, minlength=n_atoms) + np.bincount(j, minlength=n_atoms)
    edges = Edges(
        ptr=np.concatenate([[0], np.cumsum(degree)]).astype(np.int32),
        center=np.repeat(np.arange(n_atoms, dtype=np.int32), degree),
        neighbor=np.concatenate([j, i]).astype(np.int32).take(order),
        image=image.take(row, axis=0) * sign[:, None],
        bond_of_edge=bond_of_row.take(row),
        edges_of_bond=edges_of_bond,
    )
    represents = edges_of_bond[:, 0]
    return CandidateBonds(
        edges=edges,
        center=edges.center.take(represents),
        neighbor=edges.neighbor.take(represents),
        image=np.ascontiguousarray(edges.image.take(represents, axis=0).T, dtype=np.float64),
    )


def _canonical_order(i: Longs, j: Longs, image: Ints, n_atoms: int) -> Longs:
    """Sort by (centre, neighbour, image): one radix sort of a packed integer where it fits into 63 bits."""
    a, b, c = np.ascontiguousarray(image.T, dtype=np.int64)
    reach = [int(np.abs(x).max(initial=0)) for x in (a, b, c)]
    width = [2 * m + 1 for m in reach]
    n_images = width[0] * width[1] * width[2]
    if n_atoms**2 * n_images >= 2**63:
        ends, shifts = (np.concatenate([j, i]), np.concatenate([i, j])), [np.concatenate([x, -x]) for x in (c, b, a)]
        return np.lexsort((*shifts, *ends))
    code = ((a + reach[0]) * width[1] + (b + reach[1])) * width[2] + (c + reach[2])
    key = np.empty(2 * len(i), dtype=np.int64)
    np.add((i * n_atoms + j) * n_images, code, out=key[: len(i)])
    np.subtract((j * n_atoms + i) * n_images + (n_images - 1), code, out=key[len(i) :])  # the code of -image
    # torch sorts integers by radix, five times as fast as numpy
    order: Longs = torch.sort(torch.from_numpy(key), stable=True).indices.numpy()
    return order


def _count_before(mask: Bools) -> Ints:
    """How many True stand before each place of `mask` (n + 1,): the new number of what is kept."""
    count = np.empty(len(mask) + 1, dtype=np.int32)
    count[0] = 0
    np.cumsum(mask, dtype=np.int32, out=count[1:])
    return count
