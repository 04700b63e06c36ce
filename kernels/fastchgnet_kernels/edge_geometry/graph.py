"""What the geometry is measured from, and what is measured."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Graph(Protocol):
    """Systems laid end to end and their edges: floats are float64, indices int32."""

    @property
    def cell(self) -> Tensor: ...  # (systems, 3, 3) Å, rows are lattice vectors
    @property
    def atom_ptr(self) -> Tensor: ...  # (systems + 1,)
    @property
    def positions(self) -> Tensor: ...  # (atoms, 3) Å
    @property
    def system_of_atom(self) -> Tensor: ...  # (atoms,)
    @property
    def edge_ptr(self) -> Tensor: ...  # (atoms + 1,) edges that leave each atom
    @property
    def center(self) -> Tensor: ...  # (edges,)
    @property
    def neighbor(self) -> Tensor: ...  # (edges,)
    @property
    def image(self) -> Tensor: ...  # (edges, 3) lattice translation of the neighbour
    @property
    def bond_of_edge(self) -> Tensor: ...  # (edges,)
    @property
    def edges_of_bond(self) -> Tensor: ...  # (bonds, 2), column 0 represents the bond
    @property
    def short_bonds(self) -> Tensor: ...  # (short,) each of them once


class Geometry(NamedTuple):
    vector: Tensor  # (bonds, 3) Å, of the edge that represents the bond
    length: Tensor  # (bonds,) Å
    short_length: Tensor  # (short,) Å
    short_unit: Tensor  # (2 short, 3), of the two edges of each short bond: opposite to each other
