"""The cache on the device does what NeighborCache does: same graphs, same searches, same refusals; here on a CPU."""

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from graph.compare import assert_identical
from hypothesis import given, settings
from hypothesis import strategies as st
from structures import STRUCTURES, named

from ase_fastchgnet.graph import Cutoffs, DeviceNeighborCache, NeighborCache, build_batch, device_cache

CUTOFFS = Cutoffs()
WALKERS = ["LiMnO2 skewed", "triclinic scattered", "Fe bcc, one atom", "slab on its side", "wire", "benzene in a box"]


class Both:
    """A cache on the host and one on the device, which must agree."""

    def __init__(self, skin: float) -> None:
        self.host, self.device = NeighborCache(CUTOFFS, skin), DeviceNeighborCache(CUTOFFS, skin)

    def agree(self, atoms: Atoms) -> None:
        assert_identical(self.device.graph(atoms), self.host.graph(atoms))
        assert self.device.builds == self.host.builds


def strained(atoms: Atoms, strain: np.ndarray) -> None:
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)


@pytest.mark.parametrize("skin", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", WALKERS)
def test_a_random_walk_gives_the_same_graphs_in_as_many_searches(name: str, skin: float) -> None:
    rng = np.random.default_rng(1)
    atoms, both = STRUCTURES[name].copy(), Both(skin)
    for _ in range(15):
        atoms.positions += rng.normal(scale=0.03, size=(len(atoms), 3))
        both.agree(atoms)
    assert skin < 1 or both.device.builds < 8


@pytest.mark.parametrize("name", WALKERS)
def test_a_cell_that_changes_gives_the_same_graphs_in_as_many_searches(name: str) -> None:
    rng = np.random.default_rng(2)
    atoms, both = STRUCTURES[name].copy(), Both(1.0)
    for _ in range(15):
        atoms.positions += rng.normal(scale=0.01, size=(len(atoms), 3))
        strained(atoms, rng.normal(scale=0.01, size=(3, 3)))
        both.agree(atoms)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.3]), st.sampled_from([0.0, 0.05, 0.3]), st.floats(0.0, 2.0))
def test_no_move_and_no_strain_makes_a_cache_miss_an_edge(seed: int, move: float, strain: float, skin: float) -> None:
    rng = np.random.default_rng(seed)
    atoms, cache = STRUCTURES["disordered"].copy(), DeviceNeighborCache(CUTOFFS, skin)
    cache.graph(atoms)
    atoms.positions += rng.uniform(-move, move, (len(atoms), 3))
    strained(atoms, rng.uniform(-strain, strain, (3, 3)))
    assert_identical(cache.graph(atoms), build_batch([atoms], CUTOFFS))


def test_whatever_else_changes_is_noticed() -> None:
    atoms, both = STRUCTURES["MgO"].copy(), Both(1.0)

    def agree_after(change: Callable[[], object], builds: int) -> None:
        change()
        both.agree(atoms)
        assert both.device.builds == builds

    agree_after(lambda: None, 1)
    agree_after(lambda: setattr(atoms, "numbers", [26, 8] * 4), 1)
    agree_after(lambda: atoms.translate([3.0, -7.0, 11.0]), 1)
    agree_after(lambda: atoms.rotate(70, (1, 2, 3), rotate_cell=True), 1)
    agree_after(lambda: atoms.pop(3), 2)
    agree_after(lambda: setattr(atoms, "pbc", (True, False, True)), 3)
    agree_after(lambda: atoms.positions.__setitem__(0, atoms.positions[0] + atoms.cell[0]), 4)
    agree_after(lambda: atoms.set_cell(-atoms.cell.array, scale_atoms=False), 5)


def test_what_has_not_changed_is_shared() -> None:
    atoms, cache = STRUCTURES["NaCl"].copy(), DeviceNeighborCache(CUTOFFS, skin=1.0)
    first = cache.graph(atoms)
    atoms.positions[0] += 1e-4
    second = cache.graph(atoms)
    changed = {name for name in first.__slots__ if getattr(first, name) is not getattr(second, name)}
    assert changed == {"positions"}
    strained(atoms, np.eye(3) * 1e-4)
    third = cache.graph(atoms)
    assert third.center is second.center
    assert not torch.equal(third.cell, second.cell)
    atoms.positions[0] += 0.2
    assert cache.graph(atoms).center is not third.center


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many numbers the host has waited for, each time a cache did outside of a search."""
    counted: list[int] = []

    def counting(row: torch.Tensor) -> list[float]:
        counted.append(len(row))
        return row.tolist()

    monkeypatch.setattr(device_cache, "read", counting)
    return counted


def test_a_step_waits_for_the_device_once_and_once_more_if_an_edge_comes_or_goes(reads: list[int]) -> None:
    atoms, cache = STRUCTURES["NaCl"].copy(), DeviceNeighborCache(CUTOFFS, skin=1.0)
    cache.graph(atoms)
    reads.clear()
    atoms.positions[0] += 1e-4
    cache.graph(atoms)
    assert reads == [4]
    atoms.positions[0] += 0.2
    cache.graph(atoms)
    assert reads == [4, 4, 3]
    assert cache.builds == 1


def test_what_a_step_asks_the_device_for_needs_no_other_answer_before() -> None:
    """Meta tensors have no values: whatever would wait for one fails."""
    squared, limits = torch.empty(100, dtype=torch.float64, device="meta"), torch.empty(2, dtype=torch.float64)
    u = torch.empty((8, 3), dtype=torch.float64, device="meta")
    kind, summary = device_cache.compare(squared, limits.to("meta"), u, None)
    _, again = device_cache.compare(squared, limits.to("meta"), u, kind)
    assert summary.shape == again.shape == (4,)


@pytest.mark.parametrize("skin", [0.0, 1.0])
def test_a_graph_keeps_its_geometry_when_the_atoms_move_on(skin: float) -> None:
    atoms, cache = STRUCTURES["Si rattled"].copy(), DeviceNeighborCache(CUTOFFS, skin)
    graph, before = cache.graph(atoms), atoms.positions.copy()
    atoms.positions += 0.1
    atoms.cell[:] *= 1.1
    cache.graph(atoms)
    assert np.array_equal(graph.positions.numpy(), before)
    assert np.array_equal(graph.cell[0].numpy(), STRUCTURES["Si rattled"].cell.array)


def test_writing_into_positions_does_not_mislead_the_cache() -> None:
    atoms, cache = STRUCTURES["Cu fcc"].repeat((2, 2, 2)), DeviceNeighborCache(CUTOFFS, skin=0.5)
    cache.graph(atoms).positions[:, 0] += torch.linspace(0, 5, len(atoms))
    atoms.positions[:, 0] += np.linspace(0, 5, len(atoms))
    assert_identical(cache.graph(atoms), build_batch([atoms], CUTOFFS))


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_inference_mode_makes_no_difference(order: tuple[bool, bool]) -> None:
    """A cache filled within that mode serves without it, and its positions can be differentiated by."""
    atoms, cache = STRUCTURES["LiMnO2"].copy(), DeviceNeighborCache(CUTOFFS, skin=1.0)
    for inference in order:
        atoms.rattle(0.02, seed=int(inference))
        with torch.inference_mode(inference):
            graph = cache.graph(atoms)
        assert not graph.positions.is_inference()
        assert not graph.center.is_inference()
        assert_identical(graph, build_batch([atoms], CUTOFFS))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_a_copied_cache_goes_on_by_itself(duplicate: Callable[[DeviceNeighborCache], DeviceNeighborCache]) -> None:
    atoms, cache = STRUCTURES["MgO"].copy(), DeviceNeighborCache(CUTOFFS, skin=1.0)
    cache.graph(atoms)
    twin = duplicate(cache)
    atoms.rattle(0.01, seed=1)
    assert_identical(twin.graph(atoms), build_batch([atoms], CUTOFFS))
    assert (cache.builds, twin.builds) == (1, 1)


def changed(change: Callable[[Atoms], object], name: str = "LiMnO2") -> Atoms:
    atoms = STRUCTURES[name].copy()
    change(atoms)
    return atoms


BAD = {
    "no atoms": Atoms(cell=[3, 3, 3], pbc=True),
    "NaN": changed(lambda a: a.positions.__setitem__((5, 1), np.nan)),
    "far away": changed(lambda a: a.positions.__setitem__((5, 1), 1e9)),
    "infinite cell": changed(lambda a: a.cell.__setitem__((1, 2), np.inf)),
    "element 95": changed(lambda a: a.numbers.__setitem__(2, 95)),
    "no cell": changed(lambda a: a.set_pbc(True), "water, no cell"),
    "flat cell": Atoms("H", cell=[[3, 0, 0], [0, 3, 0], [3, 3, 1e-5]], pbc=True),
    "two atoms on one spot": changed(lambda a: a.positions.__setitem__(6, a.positions[1] + [0, 0, 0.004])),
    "three atoms on one spot": changed(lambda a: a.positions.__setitem__(slice(0, 3), 0.0)),
    "on one spot through an image": changed(lambda a: a.positions.__setitem__(6, a.positions[1] - 2 * a.cell[1])),
    "dense crystal": Atoms("H", cell=[0.2, 0.2, 0.2], pbc=True),
    "dense layer": Atoms("H", cell=[0.05, 0.05, 1e4], pbc=True),
    "a million images": Atoms("H2000", cell=[[30, 0, 0], [9e4, 30, 0], [9e4, 0, 30]], pbc=True),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_structure_is_refused_in_the_same_words_and_leaves_the_cache_usable(name: str) -> None:
    good, cache = STRUCTURES["LiMnO2"], DeviceNeighborCache(CUTOFFS, skin=1.0)
    cache.graph(good)
    with pytest.raises(ValueError, match="system 3: ") as on_the_host:
        NeighborCache(CUTOFFS, skin=1.0).graph(BAD[name], 3)
    with pytest.raises(ValueError, match="system 3: ") as on_the_device:
        cache.graph(BAD[name], 3)
    assert str(on_the_device.value) == str(on_the_host.value)
    assert_identical(cache.graph(good), build_batch([good], CUTOFFS))


def test_two_atoms_that_meet_on_the_way_are_refused_without_a_new_search() -> None:
    atoms, cache = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.3]]), DeviceNeighborCache(CUTOFFS, skin=1.0)
    cache.graph(atoms)
    atoms.positions[1, 2] = 0.005
    with pytest.raises(ValueError, match=r"system 7: atoms 0 \(H\) and 1 \(H\) are 0\.0050 Å apart"):
        cache.graph(atoms, system=7)
    assert cache.builds == 1


def test_too_little_memory_is_a_memory_error_that_names_the_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    good, cache = STRUCTURES["MgO"], DeviceNeighborCache(CUTOFFS)
    with monkeypatch.context() as patch:
        patch.setattr(device_cache, "find_pairs", full)
        with pytest.raises(MemoryError, match="system 2: the graph of 8 atoms does not fit into the memory of cpu"):
            cache.graph(good, 2)
    assert_identical(cache.graph(good), build_batch([good], CUTOFFS))


@pytest.mark.parametrize("skin", [-0.1, np.nan, np.inf])
def test_a_skin_that_is_no_length_is_refused(skin: float) -> None:
    with pytest.raises(ValueError, match="skin must be a length >= 0"):
        DeviceNeighborCache(CUTOFFS, skin)


@pytest.mark.parametrize("name", named(lambda atoms: len(atoms) <= 13)[::3])
def test_memory_that_nobody_has_written_to_is_not_read(name: str, poisoned_memory: object) -> None:
    atoms = STRUCTURES[name]
    graph = poisoned_memory.run(lambda: DeviceNeighborCache(CUTOFFS, 0.5).graph(atoms))  # type: ignore[attr-defined]
    assert_identical(graph, build_batch([atoms], CUTOFFS))
