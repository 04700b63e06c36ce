"""A cache gives the graph that a fresh search would give, bit by bit, and searches only when it must."""

import copy
import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from graph.compare import assert_identical
from hypothesis import given, settings
from hypothesis import strategies as st
from structures import STRUCTURES

from ase_fastchgnet.graph import Cutoffs, NeighborCache, build_batch

CUTOFFS = Cutoffs()


def assert_as_fresh(cache: NeighborCache, atoms: Atoms) -> None:
    assert_identical(cache.graph(atoms), build_batch([atoms], cache.cutoffs))


def strained(atoms: Atoms, strain: np.ndarray) -> None:
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)


@pytest.mark.parametrize("skin", [0.0, 0.3, 1.0, 3.0])
@pytest.mark.parametrize(
    "name",
    [
        "LiMnO2 rattled",
        "Si left-handed",
        "LiMnO2 skewed",
        "triclinic scattered",
        "Fe bcc, one atom",
        "slab without a third vector",
        "slab on its side",
        "wire",
        "benzene in a box",
        "dimer too far to bond",
    ],
)
def test_cached_graphs_are_bit_identical_to_fresh_ones_on_a_random_walk(name: str, skin: float) -> None:
    rng = np.random.default_rng(1)
    atoms, cache = STRUCTURES[name].copy(), NeighborCache(CUTOFFS, skin)
    for _ in range(25):
        atoms.positions += rng.normal(scale=0.03, size=(len(atoms), 3))
        assert_as_fresh(cache, atoms)
    assert skin == 0 or cache.builds < 25


@pytest.mark.parametrize(
    "name", ["LiMnO2 rattled", "triclinic left-handed", "LiMnO2 skewed", "slab on its side", "wire"]
)
def test_cached_graphs_are_bit_identical_to_fresh_ones_while_the_cell_changes(name: str) -> None:
    rng = np.random.default_rng(2)
    atoms, cache = STRUCTURES[name].copy(), NeighborCache(CUTOFFS, 1.0)
    for _ in range(25):
        atoms.positions += rng.normal(scale=0.01, size=(len(atoms), 3))
        strained(atoms, rng.normal(scale=0.01, size=(3, 3)))
        assert_as_fresh(cache, atoms)
    assert cache.builds < 25


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.3]), st.sampled_from([0.0, 0.05, 0.3]), st.floats(0.0, 2.0))
def test_no_move_and_no_strain_makes_a_cache_miss_an_edge(seed: int, move: float, strain: float, skin: float) -> None:
    rng = np.random.default_rng(seed)
    atoms, cache = STRUCTURES["disordered"].copy(), NeighborCache(CUTOFFS, skin)
    cache.graph(atoms)
    atoms.positions += rng.uniform(-move, move, (len(atoms), 3))
    strained(atoms, rng.uniform(-strain, strain, (3, 3)))
    assert_as_fresh(cache, atoms)


def test_two_atoms_that_approach_head_on_are_found() -> None:
    atoms, cache = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 7.0001]]), NeighborCache(CUTOFFS, skin=1.0)
    assert cache.graph(atoms).n_edges == 0
    for step in range(1, 120):
        atoms.positions[:, 2] = 0.005 * step, 7.0001 - 0.005 * step
        assert cache.graph(atoms).n_edges == (2 if 7.0001 - 0.01 * step < 6 else 0)


def test_nothing_is_searched_again_while_atoms_move_less_than_half_the_skin() -> None:
    rng = np.random.default_rng(3)
    atoms, cache = STRUCTURES["Si rattled"].copy(), NeighborCache(CUTOFFS, skin=1.0)
    start = atoms.positions.copy()
    cache.graph(atoms)
    for _ in range(10):
        step = rng.normal(size=start.shape)
        atoms.positions = start + 0.49 * step / np.linalg.norm(step, axis=1).max()
        cache.graph(atoms)
    assert cache.builds == 1
    atoms.positions[0] += 1.1
    cache.graph(atoms)
    assert cache.builds == 2


def test_without_a_skin_the_same_geometry_is_not_searched_again() -> None:
    atoms, cache = STRUCTURES["Si rattled"].copy(), NeighborCache(CUTOFFS)
    first, second = cache.graph(atoms), cache.graph(atoms)
    assert cache.builds == 1
    assert_identical(first, second)


def test_a_drift_of_all_atoms_is_not_a_reason_to_search() -> None:
    atoms, cache = STRUCTURES["LiMnO2 rattled"].copy(), NeighborCache(CUTOFFS, skin=0.5)
    for _ in range(10):
        atoms.positions += [3.0, -7.0, 11.0]
        assert_as_fresh(cache, atoms)
    assert cache.builds == 1


@pytest.mark.parametrize(
    ("strain", "builds"),
    [
        (-np.eye(3) * 0.14, 1),  # 7 Å × 0.86 > 6 Å
        (-np.eye(3) * 0.15, 2),  # 7 Å × 0.85 < 6 Å
        (np.eye(3) * 0.5, 1),
        (np.array([[0, 0.1, 0], [0.1, 0, 0], [0, 0, 0]]), 1),
        (np.array([[0, 0.4, 0], [0, 0, 0], [0, 0, 0]]), 2),
    ],
    ids=["compressed by less than the skin", "compressed by more", "expanded", "sheared a little", "sheared a lot"],
)
def test_a_strain_is_followed_while_it_shortens_nothing_by_more_than_the_skin(strain: np.ndarray, builds: int) -> None:
    atoms, cache = STRUCTURES["LiMnO2 rattled"].copy(), NeighborCache(CUTOFFS, skin=1.0)
    cache.graph(atoms)
    strained(atoms, strain)
    assert_as_fresh(cache, atoms)
    assert cache.builds == builds


def test_a_rotation_of_cell_and_atoms_is_followed() -> None:
    atoms, cache = STRUCTURES["LiMnO2 skewed"].copy(), NeighborCache(CUTOFFS, skin=0.2)
    cache.graph(atoms)
    atoms.rotate(70, (1, 2, 3), rotate_cell=True)
    assert_as_fresh(cache, atoms)
    assert cache.builds == 1


def test_a_mirrored_cell_with_atoms_left_in_place_is_searched_again() -> None:
    atoms, cache = STRUCTURES["triclinic scattered"].copy(), NeighborCache(CUTOFFS, skin=1.0)
    cache.graph(atoms)
    atoms.set_cell(-atoms.cell.array, scale_atoms=False)
    assert_as_fresh(cache, atoms)
    assert cache.builds == 2


def test_another_number_of_atoms_another_pbc_or_a_wrapped_atom_is_searched_again() -> None:
    atoms, cache = STRUCTURES["MgO"].copy(), NeighborCache(CUTOFFS, skin=1.0)
    assert_as_fresh(cache, atoms)
    del atoms[3]
    assert_as_fresh(cache, atoms)
    assert cache.builds == 2
    atoms.pbc = (True, False, True)
    assert_as_fresh(cache, atoms)
    assert cache.builds == 3
    atoms.positions[0] += atoms.cell[0]
    assert_as_fresh(cache, atoms)
    assert cache.builds == 4


def test_other_elements_at_the_same_places_need_no_search() -> None:
    atoms, cache = STRUCTURES["MgO"].copy(), NeighborCache(CUTOFFS, skin=1.0)
    cache.graph(atoms)
    atoms.numbers = [26, 8] * 4
    assert_as_fresh(cache, atoms)
    assert cache.builds == 1


def test_index_tensors_are_shared_while_no_edge_comes_or_goes() -> None:
    atoms, cache = STRUCTURES["NaCl"].copy(), NeighborCache(CUTOFFS, skin=1.0)
    first = cache.graph(atoms)
    atoms.positions[0] += 1e-4
    second = cache.graph(atoms)
    assert second.center is first.center
    assert second.edges_of_angle is first.edges_of_angle
    assert not torch.equal(second.positions, first.positions)
    atoms.positions[0] += 0.2
    assert cache.graph(atoms).center is not first.center
    assert_as_fresh(cache, atoms)


def test_a_graph_keeps_its_geometry_when_the_atoms_move_on() -> None:
    atoms, cache = STRUCTURES["Si rattled"].copy(), NeighborCache(CUTOFFS, skin=1.0)
    graph, before = cache.graph(atoms), atoms.positions.copy()
    atoms.positions += 0.1
    atoms.cell[:] *= 2
    assert np.array_equal(graph.positions.numpy(), before)
    assert np.array_equal(graph.cell[0].numpy(), STRUCTURES["Si rattled"].cell.array)


def test_writing_into_a_graph_does_not_mislead_the_cache() -> None:
    atoms, cache = STRUCTURES["Cu fcc"].repeat((2, 2, 2)), NeighborCache(CUTOFFS, skin=0.5)
    cache.graph(atoms).positions[:, 0] += torch.linspace(0, 5, len(atoms))
    atoms.positions[:, 0] += np.linspace(0, 5, len(atoms))
    assert_as_fresh(cache, atoms)


def test_a_refused_structure_leaves_the_cache_usable() -> None:
    atoms, cache = STRUCTURES["MgO"].copy(), NeighborCache(CUTOFFS, skin=1.0)
    cache.graph(atoms)
    for ruin in (lambda a: a.positions.__setitem__(0, np.nan), lambda a: a.cell.__setitem__(2, a.cell[1])):
        bad = atoms.copy()
        ruin(bad)
        with pytest.raises(ValueError, match="system 0"):
            cache.graph(bad)
        assert_as_fresh(cache, atoms)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_a_copied_cache_goes_on_by_itself(duplicate: object) -> None:
    atoms, cache = STRUCTURES["MgO"].copy(), NeighborCache(CUTOFFS, skin=1.0)
    cache.graph(atoms)
    twin = duplicate(cache)  # type: ignore[operator]
    atoms.rattle(0.01, seed=1)
    assert_as_fresh(twin, atoms)
    assert (cache.builds, twin.builds) == (1, 1)


@pytest.mark.parametrize("skin", [-0.1, np.nan, np.inf])
def test_a_skin_that_is_no_length_is_refused(skin: float) -> None:
    with pytest.raises(ValueError, match="skin must be a length >= 0"):
        NeighborCache(CUTOFFS, skin)
