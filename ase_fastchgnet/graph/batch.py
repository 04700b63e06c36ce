"""GraphBatch: structures and their neighbour graphs, laid end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

MAX_INDEX = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphBatch:
    """Structures and their neighbour graphs, laid end to end: torch tensors on one device.

    Floats are float64, indices int32 and count from the start of the batch. Atoms are sorted by
    system, edges by (centre, neighbour, image), bonds by their first edge, angles by (receiving
    bond, receiving edge, sending edge). The vector of edge e points from the neighbour to the
    centre, as in CHGNet:
        r[e] = positions[center[e]] - positions[neighbor[e]] - image[e] @ cell[system]   (Å)
    Graphs of one trajectory may share index tensors: treat all of them as read-only.
    """

    cell: Tensor  # (systems, 3, 3) Å, rows are lattice vectors (zeros where there are none)
    pbc: Tensor  # (systems, 3) bool
    atom_ptr: Tensor  # (systems + 1,)
    numbers: Tensor  # (atoms,) atomic number Z, 1..94
    positions: Tensor  # (atoms, 3) Å
    system_of_atom: Tensor  # (atoms,)
    edge_ptr: Tensor  # (atoms + 1,) edges whose centre is atom i
    center: Tensor  # (edges,)
    neighbor: Tensor  # (edges,)
    image: Tensor  # (edges, 3) lattice translation of the neighbour
    bond_of_edge: Tensor  # (edges,)
    edges_of_bond: Tensor  # (bonds, 2) column 0 represents the bond (the edge that comes first)
    short_bonds: Tensor  # (short,) ascending bond numbers of the bonds below the bond cut-off
    angle_ptr: Tensor  # (short + 1,) angles received by short bond s
    edges_of_angle: Tensor  # (angles, 2) (receiving edge, sending edge), both leave the same atom

    @property
    def n_systems(self) -> int:
        return len(self.cell)

    @property
    def n_atoms(self) -> int:
        return len(self.numbers)

    @property
    def n_edges(self) -> int:
        return len(self.center)

    @property
    def n_bonds(self) -> int:
        return len(self.edges_of_bond)

    @property
    def n_angles(self) -> int:
        return len(self.edges_of_angle)

    def volume(self) -> Tensor:
        """Volume of each cell (systems,), Å³; zero where the cell does not span space."""
        volume: Tensor = torch.linalg.det(self.cell).abs()
        return volume

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device (itself, if it is there already)."""
        if self.cell.device == torch.device(device):
            return self
        return type(self)(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def concatenate(graphs: Sequence[GraphBatch], device: torch.device | str | None = None) -> GraphBatch:
    """Lay batches end to end, on `device`; indices are shifted to count from the start of the new batch.

    Graphs on several devices are sent one by one; those on the same, where the batch is made, all at once.
    """
    if not graphs:
        raise ValueError("cannot concatenate an empty list of graphs; pass at least one")
    if device is not None:
        if len({graph.cell.device for graph in graphs}) == 1:
            return concatenate(graphs).to(device)
        graphs = [graph.to(device) for graph in graphs]
    if len(graphs) == 1:
        return graphs[0]

    atoms = [g.n_atoms for g in graphs]
    edges = [g.n_edges for g in graphs]
    bonds = [g.n_bonds for g in graphs]
    systems = [g.n_systems for g in graphs]
    angles = [g.n_angles for g in graphs]
    check_index_range(atoms=sum(atoms), edges=sum(edges), bonds=sum(bonds), angles=sum(angles))

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(g, name) for g in graphs])

    def shifted(name: str, counts: Sequence[int]) -> Tensor:
        """Indices of field `name`; each graph's are moved by the number of rows before it."""
        rows = [getattr(g, name) for g in graphs]
        return torch.cat([r + o for r, o in zip(rows, _offsets(counts), strict=True)])

    def pointers(name: str, counts: Sequence[int]) -> Tensor:
        rows = [getattr(g, name)[:-1] for g in graphs]
        last = graphs[0].atom_ptr.new_tensor([sum(counts)])
        return torch.cat([r + o for r, o in zip(rows, _offsets(counts), strict=True)] + [last])

    return GraphBatch(
        cell=joined("cell"),
        pbc=joined("pbc"),
        atom_ptr=pointers("atom_ptr", atoms),
        numbers=joined("numbers"),
        positions=joined("positions"),
        system_of_atom=shifted("system_of_atom", systems),
        edge_ptr=pointers("edge_ptr", edges),
        center=shifted("center", atoms),
        neighbor=shifted("neighbor", atoms),
        image=joined("image"),
        bond_of_edge=shifted("bond_of_edge", bonds),
        edges_of_bond=shifted("edges_of_bond", edges),
        short_bonds=shifted("short_bonds", bonds),
        angle_ptr=pointers("angle_ptr", angles),
        edges_of_angle=shifted("edges_of_angle", edges),
    )


def isolated_atoms(graph: GraphBatch) -> Tensor:
    """Indices of the atoms without any edge (isolated,), ascending."""
    return (graph.edge_ptr[1:] == graph.edge_ptr[:-1]).nonzero().squeeze(1)


def check_index_range(**counts: int) -> None:
    """Refuse a graph whose indices do not fit int32; called before anything is allocated."""
    for name, count in counts.items():
        if count > MAX_INDEX:
            raise OverflowError(
                f"this batch has {count} {name}, more than the {MAX_INDEX} that 32-bit indices can number; "
                "evaluate fewer structures at once, or a smaller structure"
            )


def _offsets(counts: Sequence[int]) -> list[int]:
    total, offsets = 0, []
    for count in counts:
        offsets.append(total)
        total += count
    return offsets
