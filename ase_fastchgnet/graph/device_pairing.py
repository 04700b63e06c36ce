"""Pairs → canonical edges, bonds and angles, in torch operations; the counterpart of neighbors.py and angles.py.

What `neighbors` and `angles` do in numpy is done here with the same result, element by element. Sizes are counted
first (`count`) and then given (`assemble`), so that neither has to wait for the device.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .device_arrays import count_before, pack, places, read
from .device_search import Pairs
from .neighbors import CandidateBonds, Edges


class Candidates(NamedTuple):
    """All pairs closer than some radius as directed edges in canonical order, int32; see neighbors.Edges."""

    ptr: Tensor  # (atoms + 1,) edges whose centre is atom i
    center: Tensor  # (edges,)
    neighbor: Tensor  # (edges,)
    image: Tensor  # (edges, 3)
    bond_of_edge: Tensor  # (edges,)
    edges_of_bond: Tensor  # (bonds, 2) column 0 comes first and represents the bond
    ends: Tensor  # (2 bonds,) the centres of all bonds, then their neighbours

    @property
    def n_bonds(self) -> int:
        return len(self.edges_of_bond)

    def shifts(self, cell: Tensor) -> Tensor:
        """image @ cell of every bond (bonds, 3), Å: what `squared_lengths` needs of the cell (3, 3)."""
        s = self.image.index_select(0, self.edges_of_bond[:, 0])
        shifts: Tensor = s[:, 0:1] * cell[0] + s[:, 1:2] * cell[1] + s[:, 2:3] * cell[2]
        return shifts

    def squared_lengths(self, positions: Tensor, shifts: Tensor) -> Tensor:
        """|r|² of every bond (bonds,), Å²: the operations of CandidateBonds.squared_lengths, in their order.

        Each is an operation of its own, so a GPU has no product and sum to contract into one rounding, and the bits
        are those of a CPU. A fused kernel in this place would lose that: an edge within one rounding of the cut-off
        could come or go, where the envelope and its slope are zero.
        """
        center, neighbor = positions.index_select(0, self.ends).view(2, self.n_bonds, 3)
        r = (center - neighbor).sub_(shifts)
        r.mul_(r)
        squared: Tensor = r[:, 0] + r[:, 1] + r[:, 2]
        return squared

    def on_host(self) -> CandidateBonds:
        """The same as numpy arrays."""
        edges = Edges(*(tensor.cpu().numpy() for tensor in self[:6]))
        first = edges.edges_of_bond[:, 0]
        image = np.ascontiguousarray(edges.image.take(first, axis=0).T, dtype=np.float64)
        return CandidateBonds(edges, edges.center.take(first), edges.neighbor.take(first), image)


class Counts(NamedTuple):
    """Which candidate bonds are kept, which of them are short, and how many of either stand before each place."""

    kept: Tensor  # (bonds,) bool
    short: Tensor  # (bonds,) bool
    kept_before: Tensor  # (bonds + 1,) of the bonds
    short_before: Tensor  # (bonds + 1,) of the bonds
    short_edge: Tensor  # (edges,) bool
    short_edges_before: Tensor  # (edges + 1,)
    short_degree: Tensor  # (atoms,)
    sizes: Tensor  # (3,) float64, to be read: a row of Sizes


class Sizes(NamedTuple):
    """How large a graph is."""

    bonds: int
    short: int
    angles: int


class Filler(NamedTuple):
    """What makes up a graph of given sizes; see fixed_graph.py. Numbers that only the device knows."""

    first_short: Tensor  # () the short bonds from here on are fillers, at least one
    angles: Tensor  # () that they share, each of an edge with itself


class Topology(NamedTuple):
    """The index tensors of a GraphBatch of one system that follow from its edges."""

    edge_ptr: Tensor
    center: Tensor
    neighbor: Tensor
    image: Tensor
    bond_of_edge: Tensor
    edges_of_bond: Tensor
    short_bonds: Tensor
    angle_ptr: Tensor
    edges_of_angle: Tensor


def pair_up(pairs: Pairs, n_atoms: int) -> Candidates:
    """Each row (i, j, image) is a bond and stands for the edges (i, j, image) and (j, i, -image)."""
    i, j, image = pairs
    n_bonds, device = len(i), i.device
    order = _canonical_order(i, j, image, n_atoms)
    numbers = torch.arange(2 * n_bonds, dtype=torch.int32, device=device)
    edge = torch.empty_like(numbers).scatter_(0, order, numbers)
    one, other = edge[:n_bonds], edge[n_bonds:]
    first, second = torch.minimum(one, other), torch.maximum(one, other)
    is_first = torch.zeros(2 * n_bonds, dtype=torch.bool, device=device).scatter_(0, first.long(), True)
    bond_of_row = count_before(is_first).index_select(0, first)
    edges_of_bond = torch.empty((n_bonds, 2), dtype=torch.int32, device=device)
    edges_of_bond[bond_of_row.long()] = torch.stack([first, second], 1)

    both = torch.cat([i, j]).to(torch.int32)
    center = both.index_select(0, order)
    neighbor = torch.cat([j, i]).to(torch.int32).index_select(0, order)
    atoms = torch.arange(n_atoms + 1, dtype=torch.int32, device=device)
    represents = edges_of_bond[:, 0]
    return Candidates(
        ptr=torch.searchsorted(center, atoms, out_int32=True),
        center=center,
        neighbor=neighbor,
        image=torch.cat([image, -image]).to(torch.int32).index_select(0, order),
        bond_of_edge=bond_of_row.repeat(2).index_select(0, order),
        edges_of_bond=edges_of_bond,
        ends=torch.cat([center.index_select(0, represents), neighbor.index_select(0, represents)]),
    )


def _canonical_order(i: Tensor, j: Tensor, image: Tensor, n_atoms: int) -> Tensor:
    """Sort rows as they are and rows reversed by (centre, neighbour, image), packed into one integer where it fits."""
    if not len(i):
        return i
    reach = [int(value) for value in read(image.abs().amax(0))]
    width = [2 * m + 1 for m in reach]
    n_images = width[0] * width[1] * width[2]
    if n_atoms**2 * n_images >= 2**63:
        return _order_column_by_column(torch.cat([i, j]), torch.cat([j, i]), torch.cat([image, -image]))
    code = ((image[:, 0] + reach[0]) * width[1] + image[:, 1] + reach[1]) * width[2] + image[:, 2] + reach[2]
    reversed_code = (n_images - 1) - code  # of -image
    key = torch.cat([(i * n_atoms + j) * n_images + code, (j * n_atoms + i) * n_images + reversed_code])
    return torch.sort(key, stable=True).indices


def _order_column_by_column(center: Tensor, neighbor: Tensor, image: Tensor) -> Tensor:
    order = torch.arange(len(center), device=center.device)
    for column in (image[:, 2], image[:, 1], image[:, 0], neighbor, center):
        order = order[torch.sort(column[order], stable=True).indices]
    return order


def count(candidates: Candidates, kept: Tensor, short: Tensor) -> Counts:
    """Numbers the bonds in `kept` (bonds,), of which those in `short` are short."""
    kept_before, short_before = count_before(kept), count_before(short)
    short_edge = short.index_select(0, candidates.bond_of_edge)
    short_edges_before = count_before(short_edge)
    degree = short_edges_before.index_select(0, candidates.ptr).diff()
    n_angles = (degree.long() * (degree - 1)).sum()
    sizes = pack(kept_before[-1], short_before[-1], n_angles)
    return Counts(kept, short, kept_before, short_before, short_edge, short_edges_before, degree, sizes)


def assemble(candidates: Candidates, counts: Counts, sizes: Sizes, filler: Filler | None = None) -> Topology:
    """The graph of the bonds that are kept, renumbered; the order stays canonical."""
    kept_bonds = places(counts.kept, counts.kept_before, sizes.bonds)
    keep_edge = counts.kept.index_select(0, candidates.bond_of_edge)
    new_edge = count_before(keep_edge)
    edge = places(keep_edge, new_edge, 2 * sizes.bonds)
    short_bonds = places(counts.short, counts.short_before, sizes.short)
    angle_ptr, edges_of_angle = _find_angles(candidates, counts, sizes, short_bonds, filler)
    return Topology(
        edge_ptr=new_edge.index_select(0, candidates.ptr),
        center=candidates.center.index_select(0, edge),
        neighbor=candidates.neighbor.index_select(0, edge),
        image=candidates.image.index_select(0, edge),
        bond_of_edge=counts.kept_before.index_select(0, candidates.bond_of_edge.index_select(0, edge)),
        edges_of_bond=_renumbered(new_edge, candidates.edges_of_bond.index_select(0, kept_bonds)),
        short_bonds=counts.kept_before.index_select(0, short_bonds),
        angle_ptr=angle_ptr,
        edges_of_angle=_renumbered(new_edge, edges_of_angle),
    )


def _find_angles(
    candidates: Candidates, counts: Counts, sizes: Sizes, short_bonds: Tensor, filler: Filler | None
) -> tuple[Tensor, Tensor]:
    """angle_ptr (short + 1,) and edges_of_angle (angles, 2) in the numbers of the candidates; as in angles.py."""
    before = counts.short_edges_before
    receiving = candidates.edges_of_bond.index_select(0, short_bonds).view(-1)  # (2 short,)
    sending = places(counts.short_edge, before, 2 * sizes.short)  # all short edges, by centre
    center = candidates.center.index_select(0, receiving)
    received = counts.short_degree.index_select(0, center) - 1  # by each edge
    if filler is not None:
        received, is_filler = _with_shares(received, filler)
    ends = torch.cumsum(received, 0, dtype=torch.int32)
    angle_ptr = torch.zeros(sizes.short + 1, dtype=torch.int32, device=center.device)
    angle_ptr[1:] = ends[1::2]

    # angle k of edge e takes the k-th short edge of its centre, skipping e itself
    number = torch.arange(sizes.angles, dtype=torch.int32, device=center.device)
    edge = torch.searchsorted(ends, number, right=True, out_int32=True)
    itself = before.index_select(0, receiving).index_select(0, edge)
    first = before.index_select(0, candidates.ptr[:-1]).index_select(0, center) - (ends - received)
    slot = number + first.index_select(0, edge)
    slot += slot >= itself
    if filler is not None:
        slot = torch.where(is_filler.index_select(0, edge), itself, slot)
    return angle_ptr, torch.stack([receiving.index_select(0, edge), sending.index_select(0, slot)], 1)


def _with_shares(received: Tensor, filler: Filler) -> tuple[Tensor, Tensor]:
    """Angles received by each short edge, given those of bonds that are none; and which edges are of fillers.

    Of n filler bonds the first edge of the t-th takes the angles from t/n to (t + 1)/n of all.
    """
    n_short = len(received) // 2
    rank = torch.arange(n_short, device=received.device) - filler.first_short
    share = ((rank + 1) * filler.angles).div(n_short - filler.first_short, rounding_mode="floor")
    share -= (rank * filler.angles).div(n_short - filler.first_short, rounding_mode="floor")
    shares = torch.stack([share, torch.zeros_like(share)], 1).view(-1).to(received.dtype)
    is_filler = (rank >= 0).repeat_interleave(2)
    return torch.where(is_filler, shares, received), is_filler


def _renumbered(new: Tensor, old: Tensor) -> Tensor:
    return new.index_select(0, old.reshape(-1)).view(old.shape)
