"""Pairs of atoms closer than some radius, by a cell list in torch operations: O(N) in time, bounded in memory.

Space is divided into search cells. Along a periodic axis a whole number of them fills the lattice vector, and an atom
is found in the cell it has when it is wrapped into the lattice; along any other axis there are as many as the
structure is long. Atoms are sorted by their cell. Each atom then visits the cells within reach of its own, one half of
them: what one half finds, the other half would find from the other end. A cell visited beyond the end of a periodic
axis is the one at its beginning, in the next image, so a lattice smaller than the radius meets its own images.
A visit is a row, an atom of a visited cell a trial; both are made, tried and dropped in portions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .arrays import Bools, Floats
from .device_arrays import read, upload
from .neighbors import heights

DIVISIONS = 2  # search cells per radius: smaller ones follow the sphere better, larger ones are fewer to visit
PORTION = 2**21  # rows, or trials, at a time: half a gigabyte at most


class Grid(NamedTuple):
    """The search cells; host arrays over the three axes."""

    lattice: Floats  # (3, 3) Å, complete
    pbc: Bools
    origin: Floats  # fractional coordinate where cell 0 begins
    cells: tuple[int, int, int]
    size: Floats  # of a cell, in fractional coordinates
    reach: tuple[int, int, int]  # a sphere around an atom touches this many cells on either side of its own

    @property
    def half_stencil(self) -> int:
        """How many cells an atom visits: its own, and half of the others in reach."""
        return (math.prod(2 * r + 1 for r in self.reach) + 1) // 2


class Pairs(NamedTuple):
    """Each pair once, in no order: r = positions[i] - positions[j] - image @ lattice is shorter than the radius."""

    i: Tensor  # (pairs,) int64
    j: Tensor  # (pairs,) int64
    image: Tensor  # (pairs, 3) int64


class _Wrapped(NamedTuple):
    """The atoms moved into the lattice, in the order of their cells."""

    atom: Tensor  # (atoms,) which one
    home: Tensor  # (atoms, 3) lattice vectors that were taken off
    positions: Tensor  # (atoms, 3) Å
    cell: Tensor  # (atoms, 3)
    number: Tensor  # (atoms,) of the cell, ascending


class _Visits(NamedTuple):
    """Rows: an atom, and the atoms `first`, `first + 1` … that it tries; numbers are places in `_Wrapped`."""

    atom: Tensor  # (rows,)
    image: Tensor  # (rows, 3) in which the visited cell is
    first: Tensor  # (rows,)
    n_trials: Tensor  # (rows,)


def plan_grid(positions: Floats, lattice: Floats, pbc: Bools, radius: float) -> Grid:
    """Cells for a lattice whose rows along non-periodic axes are unit vectors at right angles to all others."""
    height = heights(lattice)
    whole = np.maximum(np.floor(DIVISIONS * height / radius), 1)
    size = np.where(pbc, 1 / whole, radius / DIVISIONS)
    along = positions @ np.linalg.inv(lattice)
    origin = np.where(pbc, 0.0, along.min(axis=0))
    cells = np.where(pbc, whole, np.floor(np.ptp(along, axis=0) / size) + 1)
    reach = np.where(pbc, np.ceil(radius * whole / height), DIVISIONS)
    return Grid(lattice, pbc, origin, _triple(cells), size, _triple(reach))


def find_pairs(positions: Tensor, grid: Grid, radius: float, portion: int = PORTION) -> Pairs:
    """All pairs closer than `radius` (Å), for positions (atoms, 3) float64; reads one number twice per portion.

    Positions are wrapped for this, which moves a distance by rounding: ask for a little more than is needed.
    """
    atoms = _wrap(positions, grid)
    lattice = upload(grid.lattice, positions.device)
    found = [Pairs(atoms.atom[:0], atoms.atom[:0], atoms.cell[:0])]
    n_rows = len(positions) * grid.half_stencil
    for start in range(0, n_rows, portion):
        visits = _visit(atoms, grid, start, min(start + portion, n_rows))
        found.extend(_meet(atoms, visits, lattice, radius, portion))
    return Pairs(*(torch.cat(column) for column in zip(*found, strict=True)))


def _wrap(positions: Tensor, grid: Grid) -> _Wrapped:
    device = positions.device
    lattice, inverse = upload(grid.lattice, device), upload(np.linalg.inv(grid.lattice), device)
    periodic = upload(grid.pbc, device)
    home = torch.zeros_like(positions)
    for _ in range(2):  # an atom that is far away is not wrapped to the last digit at once
        step = torch.where(periodic, (positions @ inverse).floor(), 0.0)
        positions = positions - step @ lattice
        home += step
    cell = ((positions @ inverse - upload(grid.origin, device)) / upload(grid.size, device)).floor().long()
    cells = upload(np.array(grid.cells), device)
    cell = torch.minimum(cell.clamp_(min=0), cells - 1)
    number, atom = torch.sort(_number(cell, grid.cells), stable=True)
    return _Wrapped(atom, home[atom].long(), positions[atom], cell[atom], number)


def _number(cell: Tensor, cells: tuple[int, int, int]) -> Tensor:
    return (cell[:, 0] * cells[1] + cell[:, 1]) * cells[2] + cell[:, 2]


def _visit(atoms: _Wrapped, grid: Grid, start: int, stop: int) -> _Visits:
    """Rows `start` to `stop` of all: row k·half_stencil + s is the visit of atom k to the cell at offset s."""
    device = atoms.number.device
    half, wide = grid.half_stencil, [2 * r + 1 for r in grid.reach]
    row = torch.arange(start, stop, device=device)
    atom, offset = row // half, row % half  # the first offset is the atom's own cell, in the middle of the stencil
    code = offset + (half - 1)
    steps = [code // (wide[1] * wide[2]), code // wide[2] % wide[1], code % wide[2]]
    cell, image, exists = [], [], torch.ones_like(row, dtype=torch.bool)
    for axis, (n, reach) in enumerate(zip(grid.cells, grid.reach, strict=True)):
        target = atoms.cell[:, axis].index_select(0, atom) + (steps[axis] - reach)
        turns = torch.div(target, n, rounding_mode="floor")
        if not grid.pbc[axis]:
            exists &= turns == 0
        cell.append(target - turns * n)
        image.append(turns)
    number = _number(torch.stack(cell, 1), grid.cells)
    first, end = torch.searchsorted(atoms.number, number), torch.searchsorted(atoms.number, number, right=True)
    first = torch.where(offset == 0, atom + 1, first)  # in its own cell an atom tries those after it
    return _Visits(atom, torch.stack(image, 1), first, (end - first) * exists)


def _meet(atoms: _Wrapped, visits: _Visits, lattice: Tensor, radius: float, portion: int) -> Iterator[Pairs]:
    """The pairs among what these visits try."""
    end = torch.cumsum(visits.n_trials, 0)
    begin = end - visits.n_trials
    seen_from = atoms.positions.index_select(0, visits.atom) - visits.image.double() @ lattice
    first = visits.first - begin  # trial t of a row tries atom first + t
    (total,) = map(int, read(end[-1:]))
    for start in range(0, total, portion):
        stop = min(start + portion, total)
        trials = end.clamp(start, stop) - begin.clamp(start, stop)
        row = torch.repeat_interleave(trials, output_size=stop - start)
        other = first.index_select(0, row) + torch.arange(start, stop, device=row.device)
        r = seen_from.index_select(0, row).sub_(atoms.positions.index_select(0, other))
        hit = (r.mul_(r).sum(1) < radius**2).nonzero().squeeze(1)
        row, other = row.index_select(0, hit), other.index_select(0, hit)
        one = visits.atom.index_select(0, row)
        image = visits.image.index_select(0, row) + atoms.home.index_select(0, one) - atoms.home.index_select(0, other)
        yield Pairs(atoms.atom.index_select(0, one), atoms.atom.index_select(0, other), image)


def _triple(values: Floats) -> tuple[int, int, int]:
    x, y, z = (int(value) for value in values)
    return x, y, z
