"""NeighborCache: one system's candidate bonds are kept while atoms and cell have moved little.

Candidates are all pairs with |v₀| < R = cut-off + skin at the reference positions p₀ and lattice L₀. Let the lattice
become L = L₀ F and the positions p = p₀ F + u. The vector of a pair becomes v = v₀ F + uᵢ - uⱼ, so with σ the
smallest singular value of F a pair that is not a candidate keeps |v| ≥ σ R - 2 max|u|. While this is not below the
cut-off, no edge can be missing; candidates that are too long are masked. u may be measured from its mean, since
moving all atoms together changes no vector. Lattice rows along non-periodic axes are completed to a basis, so F
exists for slabs, wires and molecules as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

from .angles import find_angles
from .arrays import Bools, Floats
from .batch import GraphBatch
from .neighbors import CandidateBonds, Cutoffs, find_candidates, search_box
from .validate import Geometry, check_distances, check_search_cost, complete_lattice, read_geometry

MARGIN = 1e-6  # Å; searched beyond cut-off + skin, far more than rounding, in vesin or here, can move a distance


class Deformation(NamedTuple):
    """The lattice of now is the one before times `matrix`; None is unity."""

    matrix: Floats | None = None
    shrinks: float = 1.0  # the smallest singular value: no vector becomes shorter than this times its length
    grows: float = 1.0  # the largest one: nor longer than this times its length

    def of(self, positions: Floats) -> Floats:
        """Where atoms (atoms, 3) would be, had they moved with the lattice alone."""
        return positions if self.matrix is None else positions @ self.matrix


class Moved(NamedTuple):
    """How far atoms and lattice are from where they were: |v| is now from shrinks |v| - apart to grows |v| + apart."""

    shrinks: float = 1.0
    grows: float = 1.0
    apart: float = 0.0  # Å

    def reaches(self, cutoff: float, radius: float) -> bool:
        """Whether every pair that is closer than `cutoff` now is certain to have been closer than `radius`."""
        return self.apart <= self.shrinks * radius - cutoff

    def keeps(self, radius: float, cutoff: float) -> bool:
        """Whether every pair that was closer than `radius` is certain to be closer than `cutoff` now."""
        return self.grows * radius + self.apart <= cutoff


@dataclass(frozen=True, slots=True)
class Frame:
    """A lattice as it was."""

    cell: Floats
    pbc: Bools
    inverse: NDArray[np.floating]  # (3, 3) of the cell, completed along non-periodic axes

    @classmethod
    def of(cls, now: Geometry, lattice: Floats) -> Frame:
        """That of `now`, whose completed cell is `lattice`."""
        return cls(now.cell.copy(), now.pbc, np.linalg.inv(lattice))

    def deformation(self, now: Geometry, system: int) -> Deformation | None:
        """To the lattice of now; None where other axes are periodic."""
        if not np.array_equal(now.pbc, self.pbc):
            return None
        if np.array_equal(now.cell, self.cell):
            return Deformation()
        matrix = self.inverse @ complete_lattice(now, system)
        grows, _, shrinks = np.linalg.svd(matrix, compute_uv=False).tolist()
        return Deformation(matrix, shrinks, grows)


@dataclass(frozen=True, slots=True)
class Start:
    """Where atoms and lattice were."""

    frame: Frame
    positions: Floats  # a copy that no graph looks at

    @classmethod
    def of(cls, now: Geometry, system: int) -> Start:
        """Where they are now."""
        return cls(Frame.of(now, complete_lattice(now, system)), now.positions.copy())

    def moved(self, now: Geometry, system: int) -> Moved | None:
        """How far they are from there; None where atoms or periodic axes are others."""
        deformation = self.frame.deformation(now, system) if len(now.positions) == len(self.positions) else None
        if deformation is None:
            return None
        u = now.positions - deformation.of(self.positions)
        apart = 2 * min(_longest(u), _longest(u - u.mean(axis=0)))
        return Moved(deformation.shrinks, deformation.grows, apart)


@dataclass(frozen=True, slots=True)
class _Reference:
    """The candidates, and where they were searched."""

    start: Start
    candidates: CandidateBonds


@dataclass(frozen=True, slots=True)
class _Last:
    """The previous graph, and which candidates it is made of."""

    kept: Bools  # (candidates,)
    short: Bools  # (candidates,)
    graph: GraphBatch


class NeighborCache:
    """Builds the graph of one moving system, searching for neighbours only when it must.

    The graph has the same bits as a fresh one, whatever the skin: candidates are measured and masked each time.
    builds counts the searches. Consecutive graphs share their index tensors while no edge came or went.
    """

    def __init__(self, cutoffs: Cutoffs, skin: float = 0.0) -> None:
        self.cutoffs = cutoffs
        self.skin = check_skin(skin)
        self.builds = 0
        self._reference: _Reference | None = None
        self._last: _Last | None = None

    def __repr__(self) -> str:
        return f"NeighborCache({self.cutoffs}, skin={self.skin}, builds={self.builds})"

    def graph(self, atoms: Atoms, system: int = 0) -> GraphBatch:
        """The graph of `atoms` as they are now, a batch of one on the CPU; errors name it `system`."""
        now = read_geometry(atoms, system)
        reference = self._reference
        moved = None if reference is None else reference.start.moved(now, system)
        if reference is None or moved is None or not moved.reaches(self.cutoffs.atom, self._radius - MARGIN / 2):
            reference = self._search(now, system)
        bonds = reference.candidates
        squared = bonds.squared_lengths(now.positions, now.cell)
        check_distances(squared, bonds, now.numbers, system)
        kept, short = squared < self.cutoffs.atom**2, squared < self.cutoffs.bond**2
        last = self._last
        if last is not None and np.array_equal(kept, last.kept) and np.array_equal(short, last.short):
            graph = replace(last.graph, **_tensors(now))
        else:
            graph = _assemble(now, bonds, kept, short)
        self._last = _Last(kept, short, graph)
        return graph

    def _search(self, now: Geometry, system: int) -> _Reference:
        self._reference = self._last = None
        lattice = complete_lattice(now, system)
        box, radius = search_box(now.positions, lattice, now.pbc, self._radius)
        check_search_cost(box, len(now.positions), radius, system)
        candidates = find_candidates(now.positions, box, now.pbc, radius)
        self._reference = _Reference(Start.of(now, system), candidates)
        self.builds += 1
        return self._reference

    @property
    def _radius(self) -> float:
        """Of a search, Å."""
        return self.cutoffs.atom + self.skin + MARGIN


def check_skin(skin: float) -> float:
    """`skin`, refused unless it is a length in Å."""
    if not 0 <= skin < np.inf:
        raise ValueError(f"skin must be a length >= 0 in Å, got {skin}")
    return float(skin)


def _longest(vectors: Floats) -> float:
    return float(np.sqrt((vectors * vectors).sum(axis=1).max()))


def _assemble(now: Geometry, bonds: CandidateBonds, kept: Bools, short: Bools) -> GraphBatch:
    """The graph made of the candidates that are kept."""
    edges = bonds.edges if kept.all() else bonds.edges.select(kept)
    short_bonds = np.flatnonzero(short.compress(kept)).astype(np.int32)
    angle_ptr, edges_of_angle = find_angles(edges, short_bonds)
    n_atoms = len(now.positions)
    return GraphBatch(
        **_tensors(now),
        atom_ptr=torch.tensor([0, n_atoms], dtype=torch.int32),
        system_of_atom=torch.zeros(n_atoms, dtype=torch.int32),
        edge_ptr=torch.from_numpy(edges.ptr),
        center=torch.from_numpy(edges.center),
        neighbor=torch.from_numpy(edges.neighbor),
        image=torch.from_numpy(edges.image),
        bond_of_edge=torch.from_numpy(edges.bond_of_edge),
        edges_of_bond=torch.from_numpy(edges.edges_of_bond),
        short_bonds=torch.from_numpy(short_bonds),
        angle_ptr=torch.from_numpy(angle_ptr),
        edges_of_angle=torch.from_numpy(edges_of_angle),
    )


def _tensors(now: Geometry) -> dict[str, Tensor]:
    """The fields that change although the neighbours stay the same."""
    return {
        "cell": torch.from_numpy(now.cell[None]),
        "pbc": torch.from_numpy(now.pbc[None]),
        "numbers": torch.from_numpy(now.numbers),
        "positions": torch.from_numpy(now.positions),
    }
