"""Edges, bonds and angles are what their definitions say, in the order they promise."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list
from graph.compare import assert_identical, edges_of, slow_edges, slow_graph, vectors
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from structures import STRUCTURES, named, scattered

from ase_fastchgnet.graph import Cutoffs, GraphBatch, build_batch

CUTOFFS = Cutoffs()


def graph_of(atoms: Atoms, cutoffs: Cutoffs = CUTOFFS) -> GraphBatch:
    return build_batch([atoms], cutoffs)


@pytest.mark.parametrize("name", STRUCTURES)
def test_edges_equal_the_neighbour_list_of_ase(name: str) -> None:
    atoms = STRUCTURES[name]
    i, j, s = primitive_neighbor_list("ijS", atoms.pbc, atoms.cell.array, atoms.positions, CUTOFFS.atom)
    expected = sorted((int(a), int(b), tuple(c)) for a, b, c in zip(i, j, s.tolist(), strict=True))
    assert edges_of(graph_of(atoms)) == expected


@pytest.mark.parametrize("cutoffs", [Cutoffs(), Cutoffs(5.0, 3.0), Cutoffs(3.2, 3.2)], ids=str)
@pytest.mark.parametrize("name", named(lambda atoms: len(atoms) <= 13))
def test_every_index_is_the_one_of_the_definition(name: str, cutoffs: Cutoffs) -> None:
    graph = graph_of(STRUCTURES[name], cutoffs)
    for field, expected in slow_graph(STRUCTURES[name], cutoffs).items():
        assert getattr(graph, field).tolist() == expected, field


@st.composite
def cells_of_atoms(draw: st.DrawFn) -> Atoms:
    """1–5 atoms in and around a cell of any shape, size, handedness and periodicity."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.sampled_from([1.2, 2.0, 3.5, 6.0, 12.0]))
    skew = draw(st.sampled_from([0.0, 0.3, 1.0, 3.0]))
    cell = size * (np.diag(rng.uniform(0.6, 1.4, 3)) + skew * rng.normal(size=(3, 3)))
    if draw(st.booleans()):
        cell[[0, 1]] = cell[[1, 0]]
    pbc = np.array(draw(st.tuples(st.booleans(), st.booleans(), st.booleans())))
    if draw(st.booleans()):
        cell[~pbc] = 0
    spread = draw(st.sampled_from([1.0, 30.0]))
    positions = rng.uniform(-spread, spread, (draw(st.integers(1, 5)), 3)) * size
    lengths = np.linalg.norm(cell[pbc], axis=1)
    assume(not pbc.any() or np.linalg.svd(cell[pbc] / lengths[:, None], compute_uv=False)[-1] > 0.05)
    return Atoms(["H", "Li", "O", "Na", "C"][: len(positions)], positions, cell=cell, pbc=pbc)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(cells_of_atoms())
def test_every_index_is_the_one_of_the_definition_in_any_cell(atoms: Atoms) -> None:
    cutoffs = Cutoffs(atom=3.1, bond=1.9)
    assume(min(slow_edges(atoms, 0.1).values(), default=1.0) > 0.02)
    graph = graph_of(atoms, cutoffs)
    for field, expected in slow_graph(atoms, cutoffs).items():
        assert getattr(graph, field).tolist() == expected, field


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_two_edges_of_a_bond_have_exactly_opposite_vectors_and_images(name: str) -> None:
    graph = graph_of(STRUCTURES[name])
    r = vectors(graph)
    first, second = graph.edges_of_bond.long().T
    assert torch.equal(r[first], -r[second])
    assert torch.equal(graph.image[first], -graph.image[second])
    assert torch.equal(graph.center[first], graph.neighbor[second])
    assert torch.equal(graph.neighbor[first], graph.center[second])


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_edge_belongs_to_exactly_one_bond(name: str) -> None:
    graph = graph_of(STRUCTURES[name])
    assert sorted(graph.edges_of_bond.flatten().tolist()) == list(range(graph.n_edges))
    assert graph.n_edges == 2 * graph.n_bonds
    assert torch.equal(
        graph.bond_of_edge[graph.edges_of_bond.long()], torch.arange(graph.n_bonds)[:, None].expand(-1, 2)
    )


@pytest.mark.parametrize("name", STRUCTURES)
def test_edges_bonds_and_angles_are_in_canonical_order(name: str) -> None:
    graph = graph_of(STRUCTURES[name])
    edges = edges_of(graph)
    assert edges == sorted(set(edges))
    first, second = graph.edges_of_bond.T
    assert (first < second).all()
    assert (first.diff() > 0).all()
    assert (graph.short_bonds.diff() > 0).all()
    receiving, sending = graph.edges_of_angle.long().T
    angles = list(zip(graph.bond_of_edge[receiving].tolist(), receiving.tolist(), sending.tolist(), strict=True))
    assert angles == sorted(set(angles))


@pytest.mark.parametrize("name", STRUCTURES)
def test_pointers_delimit_the_edges_of_each_atom_and_the_angles_of_each_short_bond(name: str) -> None:
    graph = graph_of(STRUCTURES[name])
    per_atom = graph.edge_ptr.diff().long()
    assert torch.equal(graph.center.long(), torch.arange(graph.n_atoms).repeat_interleave(per_atom))
    receiving = graph.bond_of_edge[graph.edges_of_angle[:, 0].long()]
    assert torch.equal(receiving, graph.short_bonds.repeat_interleave(graph.angle_ptr.diff().long()))
    assert graph.edge_ptr[0] == graph.angle_ptr[0] == 0


@pytest.mark.parametrize("name", STRUCTURES)
def test_an_angle_joins_two_different_short_edges_of_one_atom(name: str) -> None:
    graph = graph_of(STRUCTURES[name])
    receiving, sending = graph.edges_of_angle.long().T
    lengths = vectors(graph).norm(dim=1)
    assert (receiving != sending).all()
    assert torch.equal(graph.center[receiving], graph.center[sending])
    assert (lengths[receiving] < CUTOFFS.bond).all()
    assert (lengths[sending] < CUTOFFS.bond).all()


def test_the_two_edges_of_a_bond_between_images_of_one_atom_form_angles_with_each_other() -> None:
    graph = graph_of(Atoms("Cu", cell=[2.5, 9, 9], pbc=True))
    assert edges_of(graph) == [(0, 0, (s, 0, 0)) for s in (-2, -1, 1, 2)]
    assert graph.edges_of_angle.tolist() == [[1, 2], [2, 1]]


@pytest.mark.parametrize(("lattice_constant", "n_edges", "n_short"), [(3.0, 26, 0), (2.999999, 32, 3)])
def test_a_length_equal_to_the_cutoff_is_outside(lattice_constant: float, n_edges: int, n_short: int) -> None:
    """Simple cubic, neighbours at √1, √2, √3 (26) and √4 (6) lattice constants; 3 Å and 6 Å are exact."""
    graph = graph_of(Atoms("W", cell=[lattice_constant] * 3, pbc=True), Cutoffs(atom=6.0, bond=3.0))
    assert graph.n_edges == n_edges
    assert len(graph.short_bonds) == n_short


def test_an_idle_cell_vector_may_be_parallel_to_a_periodic_one() -> None:
    slab = STRUCTURES["slab on its side"].copy()
    expected = edges_of(graph_of(slab))
    slab.cell[1] = 2 * slab.cell[0]
    assert edges_of(graph_of(slab)) == expected


def test_images_too_far_away_to_pack_into_one_integer_are_sorted_all_the_same() -> None:
    atoms = STRUCTURES["HfO2"].repeat((2, 1, 1))
    apart = atoms.copy()
    moves = np.random.default_rng(0).integers(-90_000, 90_000, (len(atoms), 3))
    apart.positions += moves @ atoms.cell.array
    near, far = graph_of(atoms), graph_of(apart)
    assert len(atoms) ** 2 * 360_000**3 > 2**63
    expected = sorted((i, j, tuple((np.array(s) + moves[i] - moves[j]).tolist())) for i, j, s in edges_of(near))
    assert edges_of(far) == expected


def test_moving_atoms_by_lattice_vectors_changes_images_only() -> None:
    atoms = STRUCTURES["LiMnO2 rattled"]
    near, far = graph_of(atoms), graph_of(scattered(atoms, seed=3))
    assert torch.equal(near.center, far.center)
    assert torch.equal(near.neighbor, far.neighbor)
    assert near.n_angles == far.n_angles
    assert not torch.equal(near.image, far.image)


@pytest.mark.parametrize("cell", [[7, 3000, 3000], [3000, 7, 3000], [3000, 3000, 7], [9, 9, 9e5], [9e5, 9, 9]], ids=str)
def test_long_and_flat_cells_are_searched(cell: list[float]) -> None:
    """vesin 0.6.2 left alone dies of SIGFPE: the short side of its grid of search cells shrinks to nothing."""
    atoms = Atoms("H3", positions=[[1, 1, 1], [1, 1, 3], [4, 1, 1]], cell=cell, pbc=True)
    assert edges_of(graph_of(atoms)) == list(slow_edges(atoms, CUTOFFS.atom))


def test_an_atom_flung_far_away_from_a_cluster_is_alone() -> None:
    atoms = Atoms("H3", positions=[[0, 0, 0], [0, 0, 0.8], [9e5, -9e5, 1]])
    assert edges_of(graph_of(atoms)) == [(0, 1, (0, 0, 0)), (1, 0, (0, 0, 0))]


@pytest.mark.parametrize("idle", [384, 386, 1000])
def test_an_idle_cell_vector_makes_no_neighbours_however_far_the_atoms_are_apart(idle: float) -> None:
    """Beyond 384 Å (64 search cells) the search folds non-periodic axes; what meets there only is dropped."""
    atoms = Atoms("H3", positions=[[0, 0, 0], [0, 0, 385], [0, 1, 385]], cell=[8, 8, idle], pbc=(True, True, False))
    assert edges_of(graph_of(atoms)) == [(1, 2, (0, 0, 0)), (2, 1, (0, 0, 0))]


def test_the_graph_does_not_depend_on_the_number_of_threads() -> None:
    atoms = STRUCTURES["MgO hot"]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = graph_of(atoms)
        torch.set_num_threads(2)
        two = graph_of(atoms)
    finally:
        torch.set_num_threads(threads)
    assert_identical(one, two)
