"""Who reads whose row: the incidences of a graph, in the form the kernels take them.

Short edges are numbered 2b, 2b + 1 for the two edges of short bond b, so that sums over a bond's edges are reshapes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ase_fastchgnet.graph import GraphBatch
from fastchgnet_kernels.gated_message import Incidence, Segments


class GraphIndex(NamedTuple):
    # Edges read [centre atoms | neighbour atoms | bonds] and are summed onto their centres.
    edge_rows: Incidence
    edge_bond: Incidence  # the bond of each edge, whose weight multiplies the message
    edge_segments: Segments
    # Angles read [receiving short edges | sending short bonds] and are summed onto their receiving bonds.
    angle_rows: Incidence
    angle_sender: Incidence  # the sending short bond of each angle
    angle_segments: Segments
    angle_edges: Tensor  # (angles, 2) receiving and sending short edge
    received_ptr: Tensor  # (2 short + 1,) angles received by each short edge
    angle_mirror: Tensor  # (angles,) the angle with the two edges exchanged
    # Short edges
    short_bonds: Tensor  # (short,) int64, as torch wants it to write by
    short_center: Tensor  # (2 short,) the atom a short edge leaves
    short_of_center: Incidence  # atoms ← short edges, the sum transposed to `short_center`
    has_angles: Tensor  # (bonds,) bool: whether the bond's system has an angle at all

    @property
    def n_angles(self) -> int:
        return self.angle_edges.shape[0]


def build_index(graph: GraphBatch) -> GraphIndex:
    """All incidences of `graph`, int32 on its device, which is not waited for: all sizes are those of the graph."""
    n_edges, n_short, n_angles = graph.n_edges, graph.short_bonds.shape[0], graph.n_angles
    arange = _Arange(graph.center, max(3 * n_edges, 2 * n_angles, graph.n_bonds) + 1)

    short_edges = graph.edges_of_bond.index_select(0, graph.short_bonds).view(-1)
    short_of_edge = torch.full_like(graph.center, -1)
    short_of_edge[short_edges.long()] = arange(2 * n_short)
    short_before = torch.zeros(n_edges + 1, dtype=torch.int32, device=graph.center.device)
    torch.cumsum(short_of_edge >= 0, 0, dtype=torch.int32, out=short_before[1:])
    center_ptr = short_before.index_select(0, graph.edge_ptr)
    short_center = graph.center.index_select(0, short_edges)
    place = short_before.index_select(0, short_edges)  # of a short edge among all of them in the order of edges
    in_edge_order = torch.empty_like(short_edges).scatter_(0, place.long(), arange(2 * n_short))

    angle_edges = short_of_edge.index_select(0, graph.edges_of_angle.view(-1)).view(-1, 2)
    received_ptr = torch.searchsorted(angle_edges[:, 0].contiguous(), arange(2 * n_short + 1), out_int32=True)
    rank = place - center_ptr.index_select(0, short_center)
    mirror = _mirror(angle_edges, received_ptr, rank)
    sender = angle_edges[:, 1].div(2, rounding_mode="floor")

    return GraphIndex(
        edge_rows=_edge_rows(graph, arange),
        edge_bond=Incidence(
            graph.bond_of_edge, arange(n_edges + 1), graph.edges_of_bond.view(-1), arange(2 * graph.n_bonds + 1, 2)
        ),
        edge_segments=Segments(graph.edge_ptr, graph.center),
        angle_rows=Incidence(
            torch.stack([angle_edges[:, 0], sender + 2 * n_short], 1).view(-1),
            arange(2 * n_angles + 1, 2),
            torch.cat([arange(n_angles), mirror]),
            torch.cat([received_ptr[:-1], graph.angle_ptr + n_angles]),
        ),
        angle_sender=Incidence(sender, arange(n_angles + 1), mirror, graph.angle_ptr),
        angle_segments=Segments(graph.angle_ptr, angle_edges[:, 0].div(2, rounding_mode="floor")),
        angle_edges=angle_edges,
        received_ptr=received_ptr,
        angle_mirror=mirror,
        short_bonds=graph.short_bonds.long(),
        short_center=short_center,
        short_of_center=Incidence(short_center, arange(2 * n_short + 1), in_edge_order, center_ptr),
        has_angles=_has_angles(graph),
    )


class _Arange:
    """Slices of one 0, 1, 2 …"""

    def __init__(self, like: Tensor, length: int) -> None:
        self.values = torch.arange(length, dtype=torch.int32, device=like.device)

    def __call__(self, stop: int, step: int = 1) -> Tensor:
        return self.values[:stop] if step == 1 else self.values[:stop:step].contiguous()


def _edge_rows(graph: GraphBatch, arange: _Arange) -> Incidence:
    n_atoms, n_edges = graph.n_atoms, graph.n_edges
    reverse = graph.edges_of_bond.sum(1, dtype=torch.int32).index_select(0, graph.bond_of_edge) - arange(n_edges)
    rows = torch.stack([graph.center, graph.neighbor + n_atoms, graph.bond_of_edge + 2 * n_atoms], 1)
    atoms = graph.edge_ptr[:-1]
    bond_ptr = arange(2 * graph.n_bonds + 1, 2)
    return Incidence(
        rows.view(-1),
        arange(3 * n_edges + 1, 3),
        torch.cat([arange(n_edges), reverse, graph.edges_of_bond.view(-1)]),
        torch.cat([atoms, atoms + n_edges, bond_ptr + 2 * n_edges]),
    )


def _mirror(angle_edges: Tensor, received_ptr: Tensor, rank: Tensor) -> Tensor:
    """Number of the angle (b, a) for each angle (a, b); an angle (a, a), a filler's, is its own.

    b receives from its siblings in the order of their rank, itself left out: a stands at rank(a), less one if b is
    before it.
    """
    a, b = angle_edges[:, 0], angle_edges[:, 1]
    rank_a, rank_b = rank.index_select(0, a), rank.index_select(0, b)
    exchanged = received_ptr.index_select(0, b) + rank_a - (rank_a > rank_b).to(torch.int32)
    return torch.where(a == b, torch.arange(len(a), dtype=torch.int32, device=a.device), exchanged)


def _has_angles(graph: GraphBatch) -> Tensor:
    system = graph.system_of_atom.index_select(0, graph.center)
    some = torch.zeros(graph.n_systems, dtype=torch.bool, device=graph.center.device)
    some.index_fill_(0, system.index_select(0, graph.edges_of_angle[:, 0]).long(), True)
    return some[system.index_select(0, graph.edges_of_bond[:, 0]).long()]
