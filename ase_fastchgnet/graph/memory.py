"""Bytes of a graph on a device and of the search for it, counted from the tensors that are made; see the tests."""

from __future__ import annotations

from .device_search import PORTION, Grid
from .size import RowCounts

INT = 4  # bytes of an index
NUMBER = 8  # of a float64 or an int64


def graph_bytes(rows: RowCounts) -> int:
    """Of a GraphBatch: its columns, one by one."""
    atom = 3 * INT + 3 * NUMBER  # numbers, system_of_atom, edge_ptr; positions
    edge = 6 * INT  # center, neighbor, image, bond_of_edge
    bond = 2 * INT + 2 * edge  # edges_of_bond
    short = 2 * INT  # short_bonds, angle_ptr
    return rows.atoms * atom + rows.bonds * bond + rows.short * short + rows.angles * 2 * INT


def cache_bytes(rows: RowCounts) -> int:
    """Of what a DeviceNeighborCache keeps besides: candidates, positions at the search, and how bonds were last."""
    edge = 6 * INT  # center, neighbor, image, bond_of_edge
    bond = 2 * edge + 4 * INT  # edges_of_bond, ends
    return rows.candidates * (bond + 3 * NUMBER + INT) + rows.atoms * (3 * NUMBER + INT)


def search_bytes(rows: RowCounts, grid: Grid) -> int:
    """The peak while the device searches, pairs up and assembles, the graph and the cache that come of it included.

    Per visit of a search cell 13 numbers live while its atoms are tried, and 19 while it is made; a trial takes 8
    numbers. Pairs are 5 numbers, held twice when portions are laid end to end. While `pair_up` puts edges in order, at
    `image`, a candidate takes 190 bytes; sorting them, with 48 that CUDA's sort needs within, takes less.
    `assemble` needs, besides candidates and graph, three numbers for each edge among the candidates.
    """
    visits = min(rows.atoms * grid.half_stencil, PORTION)
    per_cell = rows.atoms / (grid.cells[0] * grid.cells[1] * grid.cells[2])
    trials = min(int(visits * per_cell), PORTION)
    portion = NUMBER * max(19 * visits, 13 * visits + 8 * trials)
    wrapped = rows.atoms * 14 * NUMBER  # atom, home, positions, cell, number; positions as given
    pairs = rows.candidates * 5 * NUMBER
    assembling = rows.candidates * 2 * 3 * NUMBER + cache_bytes(rows) + graph_bytes(rows)
    return max(wrapped + pairs + max(portion, pairs), wrapped + 190 * rows.candidates, assembling)
