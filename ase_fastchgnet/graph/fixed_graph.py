"""FixedGraph: the graph of a moving system in tensors whose sizes and places stay the same while edges come and go.

That is what a CUDA graph can be recorded of. What the system lacks in edges and angles is filled up with those of a
second system, the filler: atoms each bonded to its own images, farther away than any cut-off. Fillers stand behind the
candidates in the order of a graph, so that the first ones can be kept in just the number that is missing; angles are
missing in another number than short bonds have by geometry, so each filler bond takes a share of them, as angles of an
edge with itself. All of it is a graph like any other to those who compute with it.

Bonds are chosen a little beyond the cut-offs, by `hold`, and are those of all geometries in which no two atoms have
come closer by more than that: messages from beyond a cut-off are zero, with their derivatives.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .batch import GraphBatch
from .device_arrays import count_before, pack, read, upload
from .device_cache import kinds
from .device_pairing import Candidates, Filler, Sizes, Topology, assemble, count
from .neighbors import Cutoffs
from .validate import Geometry

BONDS_PER_ATOM = 32  # of filler atoms; the last one takes what is left
NUMBER = 1  # filler atoms are hydrogen


class Capacity(NamedTuple):
    """How large a system can become."""

    candidates: int
    long: int  # bonds that are not short
    short: int
    angles: int

    @property
    def sizes(self) -> Sizes:
        """Of the graph, fillers included: always these."""
        return Sizes(self.long + self.short, self.short, self.angles)

    @property
    def all_candidates(self) -> int:
        """With enough fillers for a system without a bond."""
        return self.candidates + self.long + self.short

    @property
    def filler_atoms(self) -> int:
        """For the bonds that are usually missing, a quarter at most, and one for all others."""
        return -(-(self.long + self.short) // (4 * BONDS_PER_ATOM)) + 1

    def or_more(self, other: Capacity) -> Capacity:
        """Room for both."""
        return Capacity(*map(max, self, other))


def capacity_for(candidates: int, sizes: Sizes) -> Capacity:
    """With room for changes; the same for systems of about the same size."""
    long = sizes.bonds - sizes.short
    return Capacity(bucket(candidates), bucket(long), bucket(sizes.short), bucket(sizes.angles))


def bucket(size: int) -> int:
    """`size` and room for some deviations of a number of that size: a multiple of an eighth of a power of two."""
    least = size + size // 32 + 4 * math.isqrt(size) + 8
    step = 1 << max(least.bit_length() - 4, 3)
    return -(-least // step) * step


class Summary(NamedTuple):
    """What the host has to know of a choice of bonds before it may use results."""

    shortest: float  # Å, of all candidates
    alone: float  # atoms that are not certain to have an edge as long as the choice holds
    long: float
    short: float
    angles: float

    def fits(self, capacity: Capacity) -> bool:
        """Whether the graph was large enough for the system."""
        return self.long <= capacity.long and self.short < capacity.short and self.angles <= capacity.angles


def sizes_within(candidates: Candidates, positions: Tensor, cell: Tensor, cutoffs: Cutoffs) -> Sizes:
    """Of the graph of some candidates at positions (atoms, 3) in a cell (3, 3); waits for the device."""
    squared = candidates.squared_lengths(positions, candidates.shifts(cell))
    kind = kinds(squared, squared.new_tensor([cutoffs.bond**2, cutoffs.atom**2]))
    return Sizes(*(int(size) for size in read(count(candidates, kind < 2, kind == 0).sizes)))


class FixedGraph:
    """The tensors that a step reads; `load` and `place` write them, `choose` and `graph` can be recorded.

    For one system with the atoms and the periodic axes of `now`.
    """

    def __init__(
        self, cutoffs: Cutoffs, now: Geometry, capacity: Capacity, device: torch.device, hold: float = 0.0
    ) -> None:
        self.capacity, self.hold = capacity, hold
        self.n_atoms, n_fillers = len(now.positions), capacity.filler_atoms
        n_all = self.n_atoms + n_fillers
        numbers = np.concatenate([now.numbers, np.full(n_fillers, NUMBER, np.int32)])
        self._atoms = {
            "numbers": upload(numbers, device).clone(),
            "system_of_atom": (torch.arange(n_all, dtype=torch.int32, device=device) >= self.n_atoms).to(torch.int32),
            "atom_ptr": torch.tensor([0, self.n_atoms, n_all], dtype=torch.int32, device=device),
            "pbc": upload(np.stack([now.pbc, np.ones(3, bool)]), device).clone(),
        }
        limits = np.array([cutoffs.bond + hold, cutoffs.atom - hold, cutoffs.atom + hold])
        assert (np.diff(limits) >= 0).all(), "bonds that may be short must be certain to be bonds"
        self._limits = upload(limits**2, device).clone()
        self._positions = torch.zeros((n_all, 3), dtype=torch.float64, device=device)
        self._cell = torch.eye(3, dtype=torch.float64, device=device).mul_(2 * cutoffs.atom).repeat(2, 1, 1)
        self._n_candidates = torch.zeros((), dtype=torch.int64, device=device)
        self._candidates = _with_fillers(_none(self.n_atoms, device), self.n_atoms, capacity)

    def load(self, candidates: Candidates) -> None:
        """Candidates of a search, at most as many as there is room for."""
        for mine, theirs in zip(self._candidates, _with_fillers(candidates, self.n_atoms, self.capacity), strict=True):
            mine.copy_(theirs)
        self._n_candidates.fill_(candidates.n_bonds)

    def place(self, now: Geometry) -> None:
        """Where atoms and lattice are."""
        self._positions[: self.n_atoms].copy_(upload(now.positions, self._positions.device))
        self._cell[0].copy_(upload(now.cell, self._cell.device))

    def choose(self) -> tuple[Topology, Tensor]:
        """The bonds and angles of the system and its filler, and a row of numbers: a Summary.

        Where the system is too large for it, they are those of fillers alone.
        """
        candidates, capacity = self._candidates, self.capacity
        place = torch.arange(candidates.n_bonds, device=self._cell.device) - self._n_candidates
        real = place < 0
        squared = candidates.squared_lengths(self._positions, candidates.shifts(self._cell[0]))
        squared = torch.where(real, squared, torch.inf)
        kind = kinds(squared, self._limits)  # 0 is a short bond, 1 a longer one, 2 perhaps one, 3 none
        found = count(candidates, kind < 3, kind == 0)
        bonds, short, angles = found.sizes.long()
        fits = (bonds - short <= capacity.long) & (short < capacity.short) & (angles <= capacity.angles)
        bonds, short, angles = (torch.where(fits, size, 0) for size in (bonds, short, angles))

        sizes = capacity.sizes
        kept = ((kind < 3) & fits) | (~real & (place < sizes.bonds - bonds))
        kept_short = ((kind == 0) & fits) | (~real & (place < sizes.short - short))
        topology = assemble(
            candidates, count(candidates, kept, kept_short), sizes, Filler(short, sizes.angles - angles)
        )
        certain = count_before((kind < 2).index_select(0, candidates.bond_of_edge))
        alone = (certain.index_select(0, candidates.ptr[: self.n_atoms + 1]).diff() == 0).sum()
        long = found.sizes[0] - found.sizes[1]
        return topology, pack(squared.amin().sqrt(), alone, long, found.sizes[1:])

    def graph(self, topology: Topology) -> GraphBatch:
        """The graph of the system, where its atoms are now, and its filler."""
        return GraphBatch(**self._atoms, cell=self._cell, positions=self._positions, **topology._asdict())


def _none(n_atoms: int, device: torch.device) -> Candidates:
    """No candidates."""
    ptr = torch.zeros(n_atoms + 1, dtype=torch.int32, device=device)
    none = ptr[:0]
    return Candidates(ptr, none, none, none.view(0, 1).expand(0, 3), none, none.view(0, 1).expand(0, 2), none)


def _with_fillers(candidates: Candidates, n_atoms: int, capacity: Capacity) -> Candidates:
    """`candidates` and behind them, on atoms of their own, as many fillers as make up the capacity."""
    first = candidates.n_bonds
    rank = torch.arange(capacity.all_candidates - first, dtype=torch.int32, device=candidates.ptr.device)
    atom = n_atoms + rank.div(BONDS_PER_ATOM, rounding_mode="floor").clamp_(max=capacity.filler_atoms - 1)
    bond = rank + first
    ends, image = atom.repeat_interleave(2), torch.zeros((2 * len(rank), 3), dtype=torch.int32, device=rank.device)
    image[::2, 0], image[1::2, 0] = 1, -1
    center, edges = torch.cat([candidates.center, ends]), torch.stack([2 * bond, 2 * bond + 1], 1)
    neighbor, edges_of_bond = torch.cat([candidates.neighbor, ends]), torch.cat([candidates.edges_of_bond, edges])
    atoms = torch.arange(n_atoms + capacity.filler_atoms + 1, dtype=torch.int32, device=rank.device)
    represents = edges_of_bond[:, 0]
    return Candidates(
        ptr=torch.searchsorted(center, atoms, out_int32=True),
        center=center,
        neighbor=neighbor,
        image=torch.cat([candidates.image, image]),
        bond_of_edge=torch.cat([candidates.bond_of_edge, bond.repeat_interleave(2)]),
        edges_of_bond=edges_of_bond,
        ends=torch.cat([center.index_select(0, represents), neighbor.index_select(0, represents)]),
    )
