"""The graph once more, slowly and straight from its definition; and what it takes for two graphs to be equal."""

from collections import defaultdict
from dataclasses import fields
from itertools import product

import numpy as np
import torch
from ase import Atoms
from ase.geometry import complete_cell

from ase_fastchgnet.graph import Cutoffs, GraphBatch

Edge = tuple[int, int, tuple[int, int, int]]  # (centre, neighbour, image)


def assert_identical(one: GraphBatch, other: GraphBatch) -> None:
    """The same bits in every field."""
    for field in fields(GraphBatch):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert a.dtype == b.dtype, field.name
        assert torch.equal(a, b), f"{field.name}: {a} != {b}"


def edges_of(graph: GraphBatch) -> list[Edge]:
    """The directed edges as they stand, readable."""
    return [
        (i, j, tuple(s))
        for i, j, s in zip(graph.center.tolist(), graph.neighbor.tolist(), graph.image.tolist(), strict=True)
    ]


def vectors(graph: GraphBatch) -> torch.Tensor:
    """r of every edge (edges, 3), from the formula in the docstring of GraphBatch."""
    i, j = graph.center.long(), graph.neighbor.long()
    s, cell = graph.image.double(), graph.cell[graph.system_of_atom.long()[i]]
    shift = s[:, 0:1] * cell[:, 0] + s[:, 1:2] * cell[:, 1] + s[:, 2:3] * cell[:, 2]
    return graph.positions[i] - graph.positions[j] - shift


def slow_edges(atoms: Atoms, cutoff: float) -> dict[Edge, float]:
    """Every edge and its length, in canonical order: all images that could be in reach are tried one by one."""
    cell = atoms.cell.array
    inverse = np.linalg.inv(complete_cell(np.where(atoms.pbc[:, None], cell, 0.0)))
    reach = cutoff * np.sqrt((inverse**2).sum(axis=0))
    edges: dict[Edge, float] = {}
    for i, j in product(range(len(atoms)), repeat=2):
        between = atoms.positions[i] - atoms.positions[j]
        middle = between @ inverse
        ranges = [
            range(int(np.floor(m - r)), int(np.ceil(m + r)) + 1) if periodic else range(1)
            for m, r, periodic in zip(middle, reach, atoms.pbc, strict=True)
        ]
        for image in product(*ranges):
            length = float(np.linalg.norm(between - np.array(image) @ cell))
            if length < cutoff and (i != j or any(image)):
                edges[i, j, image] = length
    return dict(sorted(edges.items()))


def slow_graph(atoms: Atoms, cutoffs: Cutoffs) -> dict[str, list]:
    """The index fields of the graph of one system, as nested lists."""
    lengths = slow_edges(atoms, cutoffs.atom)
    edges = list(lengths)
    number = {edge: k for k, edge in enumerate(edges)}
    bonds = [
        (k, number[j, i, (-s[0], -s[1], -s[2])])
        for k, (i, j, s) in enumerate(edges)
        if k < number[j, i, (-s[0], -s[1], -s[2])]
    ]
    bond_of_edge = {edge: bond for bond, pair in enumerate(bonds) for edge in pair}
    short_bonds = [bond for bond, (first, _) in enumerate(bonds) if lengths[edges[first]] < cutoffs.bond]
    leaving = defaultdict(list)
    for k, (i, _, _) in enumerate(edges):
        if lengths[edges[k]] < cutoffs.bond:
            leaving[i].append(k)
    angles_of_bond = [
        [[edge, other] for edge in bonds[bond] for other in leaving[edges[edge][0]] if other != edge]
        for bond in short_bonds
    ]
    return {
        "edge_ptr": [sum(i < atom for i, _, _ in edges) for atom in range(len(atoms) + 1)],
        "center": [i for i, _, _ in edges],
        "neighbor": [j for _, j, _ in edges],
        "image": [list(s) for _, _, s in edges],
        "bond_of_edge": [bond_of_edge[k] for k in range(len(edges))],
        "edges_of_bond": [list(pair) for pair in bonds],
        "short_bonds": short_bonds,
        "angle_ptr": [0, *np.cumsum([len(angles) for angles in angles_of_bond]).astype(int).tolist()],
        "edges_of_angle": [angle for angles in angles_of_bond for angle in angles],
    }
