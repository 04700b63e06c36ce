"""The graph is the one that stock chgnet builds: the same edges, the same pairing, the same angles."""

import warnings
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from graph.compare import Edge, edges_of
from structures import STRUCTURES, named

from ase_fastchgnet.graph import Cutoffs, GraphBatch, build_batch

# stock repeats every structure in three directions, so only three-dimensional crystals can be compared
CRYSTALS = named(lambda atoms: bool(atoms.pbc.all()) and len(atoms) <= 30)


def stock_graph(atoms: Atoms, cutoffs: Cutoffs) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations in chgnet's dependencies
        from chgnet.graph import CrystalGraphConverter
        from pymatgen.io.ase import AseAtomsAdaptor

        converter = CrystalGraphConverter(
            atom_graph_cutoff=cutoffs.atom, bond_graph_cutoff=cutoffs.bond, on_isolated_atoms="ignore"
        )
        assert converter.algorithm == "fast"
        return converter(AseAtomsAdaptor.get_structure(atoms))


def stock_edges(graph: Any) -> list[Edge]:
    return [
        (i, j, tuple(int(x) for x in s))
        for (i, j), s in zip(graph.atom_graph.tolist(), graph.neighbor_image.tolist(), strict=True)
    ]


def pairs(edges: list[Edge], bond_of_edge: list[int]) -> set[frozenset[Edge]]:
    members = defaultdict(list)
    for edge, bond in zip(edges, bond_of_edge, strict=True):
        members[bond].append(edge)
    return {frozenset(pair) for pair in members.values()}


def angles(graph: GraphBatch) -> list[tuple[Edge, Edge]]:
    edges = edges_of(graph)
    return sorted((edges[a], edges[b]) for a, b in graph.edges_of_angle.tolist())


@pytest.mark.parametrize("cutoffs", [Cutoffs(), Cutoffs(5.0, 3.0)], ids=["0.3.0", "0.2.0"])
@pytest.mark.parametrize("name", CRYSTALS)
def test_edges_pairs_and_angles_equal_those_of_stock(name: str, cutoffs: Cutoffs) -> None:
    atoms = STRUCTURES[name]
    ours, stock = build_batch([atoms], cutoffs), stock_graph(atoms, cutoffs)
    edges = stock_edges(stock)
    assert edges_of(ours) == sorted(edges)
    assert pairs(edges_of(ours), ours.bond_of_edge.tolist()) == pairs(edges, stock.directed2undirected.tolist())
    # columns of bond_graph: centre, receiving bond, receiving edge, sending bond, sending edge
    columns = np.reshape(stock.bond_graph.tolist(), (-1, 5))
    assert angles(ours) == sorted((edges[a], edges[b]) for a, b in columns[:, [2, 4]].tolist())
    assert columns[:, 0].tolist() == [edges[a][0] for a in columns[:, 2].tolist()]


def test_at_a_tie_stock_keeps_receiving_bonds_without_angles_and_we_keep_none() -> None:
    """Simple cubic, a = 3 Å: every nearest neighbour is a tie. Stock's test for sending edges is strict, as is ours."""
    atoms = Atoms("W", cell=[3, 3, 3], pbc=True)
    ours, stock = build_batch([atoms], Cutoffs()), stock_graph(atoms, Cutoffs())
    assert len(ours.short_bonds) == ours.n_angles == len(stock.bond_graph) == 0


def test_at_a_mixed_tie_stock_has_angles_that_no_short_bond_receives() -> None:
    """Two neighbours at 2.5 Å and two at exactly 3 Å: the long ones receive from the short ones, in stock only.

    The envelope of a bond of 3 Å is zero, and so is its slope: these angles add nothing to energy and forces.
    """
    atoms = Atoms("W", cell=[2.5, 3.0, 9.0], pbc=True)
    ours, stock = build_batch([atoms], Cutoffs()), stock_graph(atoms, Cutoffs())
    assert ours.n_angles == 2
    assert len(stock.bond_graph) == 2 + 2 * 2
