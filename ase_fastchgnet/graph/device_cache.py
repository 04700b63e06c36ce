"""DeviceNeighborCache: what NeighborCache does, with all that grows with the structure on the device.

A step sends the positions up and reads four numbers back, once: how far atoms have moved, by the criterion of skin.py,
the shortest distance, and whether an edge came or went. If one did, the sizes of the new graph are read as well. A
search reads the largest images and, per portion (device_search.py), the numbers of trials and of hits; then the new
candidates are measured in their turn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from .batch import GraphBatch, check_index_range
from .device_arrays import pack, read, upload
from .device_pairing import Candidates, Sizes, assemble, count, pair_up
from .device_search import find_pairs, plan_grid
from .neighbors import Cutoffs, search_box
from .skin import MARGIN, Deformation, Frame, Moved, Start, check_skin
from .validate import MIN_DISTANCE, Geometry, check_distances, check_search_cost, complete_lattice, read_geometry


class _Placed(NamedTuple):
    """A geometry on the device; what has not changed since the last graph is the same tensor as there."""

    cell: Tensor  # (1, 3, 3)
    pbc: Tensor  # (1, 3)
    numbers: Tensor  # (atoms,)
    positions: Tensor  # (atoms, 3)


@dataclass(frozen=True, slots=True)
class Reference:
    """The candidates, and where they were searched."""

    frame: Frame
    positions: Tensor  # (atoms, 3), a copy that no graph looks at
    candidates: Candidates
    limits: Tensor  # (2,) Å², squares of the cut-offs of short bonds and of all

    def deformation(self, now: Geometry, system: int) -> Deformation | None:
        """To the lattice of now; None where the candidates cannot be those of `now` at all."""
        return self.frame.deformation(now, system) if len(now.positions) == len(self.positions) else None

    def start(self) -> Start:
        """The same for the host."""
        return Start(self.frame, self.positions.cpu().numpy())


@dataclass(frozen=True, slots=True)
class _Last:
    """The previous graph, and what it was made of."""

    geometry: Geometry
    graph: GraphBatch
    kind: Tensor  # (candidates,)
    shifts: Tensor  # (candidates, 3) Å


class _Measured(NamedTuple):
    """The candidates as they are now."""

    shifts: Tensor  # (candidates, 3) Å
    squared: Tensor  # (candidates,) Å²
    kind: Tensor  # (candidates,) int32: 0 is a short bond, 1 a longer one, 2 none
    moved: Moved  # since the search
    shortest: float  # Å², of all candidates
    changed: bool  # whether a candidate is of another kind than in the last graph


class DeviceNeighborCache:
    """Builds the graph of one moving system on the device, searching for neighbours only when it must.

    The graph has the bits of NeighborCache's, moved there. builds counts the searches. Consecutive graphs share their
    index tensors while no edge came or went, and cell, pbc and numbers while they are what they were.
    """

    def __init__(self, cutoffs: Cutoffs, skin: float = 0.0, *, device: torch.device | str = "cpu") -> None:
        self.cutoffs = cutoffs
        self.skin = check_skin(skin)
        self.device = torch.device(device)
        self.builds = 0
        self.reference: Reference | None = None  # the last search
        self._last: _Last | None = None

    def __repr__(self) -> str:
        return f"DeviceNeighborCache({self.cutoffs}, skin={self.skin}, device='{self.device}', builds={self.builds})"

    @property
    def geometry(self) -> Geometry | None:
        """That of the last graph."""
        return None if self._last is None else self._last.geometry

    @torch.inference_mode(False)  # what is kept must serve within that mode and without
    def graph(self, atoms: Atoms, system: int = 0) -> GraphBatch:
        """The graph of `atoms` as they are now, a batch of one on the device; errors name it `system`.

        MemoryError if the device has too little memory for it.
        """
        now = read_geometry(atoms, system)
        try:
            return self._graph(now, system)
        except torch.OutOfMemoryError as error:
            self.reference = self._last = None
            raise MemoryError(
                f"system {system}: the graph of {len(atoms)} atoms does not fit into the memory of {self.device}; "
                "use a smaller cell or skin, or a device with more memory"
            ) from error

    def _graph(self, now: Geometry, system: int) -> GraphBatch:
        placed = self._place(now)
        reference = self.reference
        deformation = None if reference is None else reference.deformation(now, system)
        measured = None
        if reference is not None and deformation is not None:
            measured = self._measure(reference, placed, deformation)
            if not self.reaches(measured.moved):
                measured = None
        if reference is None or measured is None:
            reference = self._search(now, placed, system)
            measured = self._measure(reference, placed, Deformation())
        if measured.shortest < MIN_DISTANCE**2:
            check_distances(measured.squared.cpu().numpy(), reference.candidates.on_host(), now.numbers, system)
        if measured.changed or self._last is None:
            graph = _build(placed, reference.candidates, measured.kind)
        else:
            graph = replace(self._last.graph, **placed._asdict())
        self._last = _Last(now, graph, measured.kind, measured.shifts)
        return graph

    def _place(self, now: Geometry) -> _Placed:
        positions, last = upload(now.positions, self.device), self._last
        if last is not None and _same_but_for_positions(last.geometry, now):
            return _Placed(last.graph.cell, last.graph.pbc, last.graph.numbers, positions)
        cell, pbc, numbers = (upload(a, self.device) for a in (now.cell[None], now.pbc[None], now.numbers))
        return _Placed(cell, pbc, numbers, positions)

    def _search(self, now: Geometry, placed: _Placed, system: int) -> Reference:
        self.reference = self._last = None
        lattice = complete_lattice(now, system)
        box, searched = search_box(now.positions, lattice, now.pbc, self._radius)
        check_search_cost(box, len(now.positions), searched, system)
        pairs = find_pairs(placed.positions, plan_grid(now.positions, lattice, now.pbc, self._radius), self._radius)
        check_index_range(atoms=len(now.positions), edges=2 * len(pairs.i))
        candidates = pair_up(pairs, len(now.positions))
        limits = upload(np.array([self.cutoffs.bond**2, self.cutoffs.atom**2]), self.device)
        self.reference = Reference(Frame.of(now, lattice), placed.positions.clone(), candidates, limits)
        self.builds += 1
        return self.reference

    def _measure(self, reference: Reference, placed: _Placed, deformation: Deformation) -> _Measured:
        """Lengths of the candidates, and how far atoms are from where they were searched: read in one go."""
        last, cell = self._last, placed.cell
        shifts = last.shifts if last is not None and cell is last.graph.cell else reference.candidates.shifts(cell[0])
        squared = reference.candidates.squared_lengths(placed.positions, shifts)
        start = reference.positions
        if deformation.matrix is not None:
            start = start @ upload(deformation.matrix, start.device)
        last_kind = None if last is None else last.kind
        kind, summary = compare(squared, reference.limits, placed.positions - start, last_kind)
        way, way_from_mean, shortest, changed = read(summary)
        moved = Moved(deformation.shrinks, deformation.grows, 2 * min(way, way_from_mean))
        return _Measured(shifts, squared, kind, moved, shortest, changed > 0)

    def reaches(self, moved: Moved) -> bool:
        """Whether every edge is certain to be among the candidates (see the top of skin.py)."""
        return moved.reaches(self.cutoffs.atom, self._radius - MARGIN / 2)

    @property
    def _radius(self) -> float:
        """Of a search, Å."""
        return self.cutoffs.atom + self.skin + MARGIN


def compare(squared: Tensor, limits: Tensor, u: Tensor, last_kind: Tensor | None) -> tuple[Tensor, Tensor]:
    """The kind of each candidate, from |r|² (candidates,), and the four numbers that the host needs to know of a step.

    They are the two `ways`, min |r|², and 1 if a kind is not what it was.
    """
    kind = kinds(squared, limits)
    shortest = squared.amin() if len(squared) else squared.new_full((1,), torch.inf)
    changed = squared.new_zeros(1) if last_kind is None else (kind != last_kind).any()
    return kind, pack(ways(u), shortest, changed)


def kinds(squared: Tensor, limits: Tensor) -> Tensor:
    """0 for short bonds, 1 for longer ones, 2 for none: the number of `limits` that are ≤ |r|², int32."""
    return torch.bucketize(squared, limits, right=True, out_int32=True)


def ways(u: Tensor) -> Tensor:
    """max |u| and max |u - mean| (2,) of displacements u (atoms, 3), Å."""
    found: Tensor = torch.linalg.vector_norm(torch.stack([u, u - u.mean(0)]), dim=2).amax(1)
    return found


def _same_but_for_positions(one: Geometry, other: Geometry) -> bool:
    return (
        np.array_equal(one.cell, other.cell)
        and np.array_equal(one.pbc, other.pbc)
        and np.array_equal(one.numbers, other.numbers)
    )


def _build(placed: _Placed, candidates: Candidates, kind: Tensor) -> GraphBatch:
    """The graph made of the candidates that are bonds."""
    counts = count(candidates, kind < 2, kind == 0)
    sizes = Sizes(*(int(size) for size in read(counts.sizes)))
    check_index_range(angles=sizes.angles)
    n_atoms, device = len(placed.positions), placed.positions.device
    return GraphBatch(
        **placed._asdict(),
        **assemble(candidates, counts, sizes)._asdict(),
        atom_ptr=torch.arange(0, n_atoms + 1, n_atoms, dtype=torch.int32, device=device),
        system_of_atom=torch.zeros(n_atoms, dtype=torch.int32, device=device),
    )
