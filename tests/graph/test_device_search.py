"""What the device finds, in torch operations that a CPU runs as well, is what vesin and numpy find, bit by bit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from graph.compare import assert_identical, edges_of, slow_edges
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from structures import STRUCTURES, named, rattled, scattered
from torch.overrides import TorchFunctionMode

from ase_fastchgnet.graph import Cutoffs, DeviceNeighborCache, NeighborCache, concatenate, neighbor_cache
from ase_fastchgnet.graph.device_pairing import Sizes, assemble, count, pair_up
from ase_fastchgnet.graph.device_search import find_pairs, plan_grid

CUTOFFS = Cutoffs()


def assert_as_on_the_host(atoms: Atoms, cutoffs: Cutoffs = CUTOFFS, skin: float = 0.0) -> None:
    expected = NeighborCache(cutoffs, skin).graph(atoms)
    assert_identical(DeviceNeighborCache(cutoffs, skin).graph(atoms), expected)


@pytest.mark.parametrize("skin", [0.0, 1.0])
@pytest.mark.parametrize("name", STRUCTURES)
def test_the_graph_is_the_one_of_the_host(name: str, skin: float) -> None:
    assert_as_on_the_host(STRUCTURES[name], skin=skin)


@pytest.mark.parametrize("cutoffs", [Cutoffs(5.0, 3.0), Cutoffs(3.2, 3.2), Cutoffs(9.0, 0.5)], ids=str)
@pytest.mark.parametrize("name", named(lambda atoms: len(atoms) <= 4))
def test_the_graph_is_the_one_of_the_host_for_other_cutoffs(name: str, cutoffs: Cutoffs) -> None:
    assert_as_on_the_host(STRUCTURES[name], cutoffs)


@st.composite
def cells_of_atoms(draw: st.DrawFn) -> Atoms:
    """1–20 atoms in and around a cell of any shape, handedness and periodicity, from tiny to long and flat."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sizes = st.sampled_from([1.0, 1.7, 3.1, 6.0, 13.0, 400.0])
    size = np.array(draw(st.one_of(sizes.map(lambda s: (s, s, s)), st.tuples(sizes, sizes, sizes))))
    skew = draw(st.sampled_from([0.0, 0.3, 1.0, 3.0]))
    cell = (np.diag(rng.uniform(0.6, 1.4, 3)) + skew * rng.normal(size=(3, 3))) * size[:, None]
    pbc = np.array(draw(st.tuples(st.booleans(), st.booleans(), st.booleans())))
    if draw(st.booleans()):
        cell[~pbc] = 0
    positions = rng.uniform(-1, 1, (draw(st.integers(1, 20)), 3)) * draw(st.sampled_from([3.0, 15.0, 300.0]))
    lengths = np.linalg.norm(cell[pbc], axis=1)
    assume(not pbc.any() or np.linalg.svd(cell[pbc] / lengths[:, None], compute_uv=False)[-1] > 0.05)
    return Atoms(f"H{len(positions)}", positions, cell=cell, pbc=pbc)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(cells_of_atoms(), st.sampled_from([0.0, 0.7]))
def test_the_graph_is_the_one_of_the_host_in_any_cell(atoms: Atoms, skin: float) -> None:
    try:
        expected = NeighborCache(Cutoffs(3.1, 1.9), skin).graph(atoms)
    except ValueError:  # too close, or too many: both refuse it, see test_device_cache
        assume(False)
    assert_identical(DeviceNeighborCache(Cutoffs(3.1, 1.9), skin).graph(atoms), expected)


@pytest.mark.parametrize(
    "atoms",
    [
        bulk("Si", cubic=True).repeat((5, 5, 6)),
        rattled(STRUCTURES["LiMnO2"], (4, 4, 8), 0.1, seed=1),
        scattered(rattled(STRUCTURES["MgO"], (5, 5, 5), 0.1, seed=2), seed=3),
    ],
    ids=["Si", "LiMnO2", "MgO scattered"],
)
def test_a_thousand_atoms(atoms: Atoms) -> None:
    assert len(atoms) >= 1000
    assert_as_on_the_host(atoms)


@pytest.mark.parametrize("cell", [[7, 3000, 3000], [3000, 3000, 7], [9, 9, 9e5], [9e5, 9e5, 9e5]], ids=str)
def test_an_empty_cell_however_large_costs_nothing(cell: list[float]) -> None:
    atoms = Atoms("H3", positions=[[1, 1, 1], [1, 1, 3], [4, 1, 1]], cell=cell, pbc=True)
    assert edges_of(DeviceNeighborCache(CUTOFFS).graph(atoms)) == list(slow_edges(atoms, CUTOFFS.atom))


@pytest.mark.parametrize("distance", [1e2, 1e4, 9e5])
def test_an_atom_flung_far_away_from_a_cluster_is_alone(distance: float) -> None:
    atoms = Atoms("H3", positions=[[0, 0, 0], [0, 0, 0.8], [distance, -distance, 1]])
    assert edges_of(DeviceNeighborCache(CUTOFFS).graph(atoms)) == [(0, 1, (0, 0, 0)), (1, 0, (0, 0, 0))]


def test_images_too_far_away_to_pack_into_one_integer_are_sorted_all_the_same() -> None:
    atoms = STRUCTURES["HfO2"].repeat((2, 1, 1))
    atoms.positions += np.random.default_rng(0).integers(-90_000, 90_000, (len(atoms), 3)) @ atoms.cell.array
    assert len(atoms) ** 2 * 360_000**3 > 2**63
    assert_as_on_the_host(atoms)


def test_a_pair_at_the_edge_of_two_search_cells_is_found_once() -> None:
    """Atoms on lattice planes, where rounding decides into which cell each of them is sorted."""
    for a in (3.0, 7.0 / 3, 7.000001 / 2, 3.5):
        assert_as_on_the_host(Atoms("W", cell=[a, a, a], pbc=True).repeat((4, 3, 2)), skin=1.0)
        assert_as_on_the_host(Atoms("W", cell=[a, a, a], pbc=(True, True, False)).repeat((4, 3, 2)), skin=1.0)


class LargestTensor(TorchFunctionMode):
    """Records how many numbers the largest tensor held that any call of torch returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_function__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            self.numel = max(self.numel, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
        return out


def search(atoms: Atoms, radius: float, portion: int) -> tuple:
    lattice, positions = atoms.cell.array, torch.from_numpy(atoms.positions)
    return find_pairs(positions, plan_grid(atoms.positions, lattice, atoms.pbc, radius), radius, portion)


@pytest.mark.parametrize("portion", [1000, 1237, 30_000])
def test_a_search_in_portions_finds_the_same_and_needs_no_more_memory_than_one_of_them(portion: int) -> None:
    atoms = rattled(bulk("Si", cubic=True), (3, 3, 3), 0.1, seed=4)
    whole = pair_up(search(atoms, 6.0, 2**40), len(atoms))
    with LargestTensor() as largest:
        pairs = search(atoms, 6.0, portion)
    for one, other in zip(pair_up(pairs, len(atoms)), whole, strict=True):
        assert torch.equal(one, other)
    assert largest.numel <= 3 * max(portion, len(atoms), len(pairs.i))  # three components a row


def test_a_search_tries_few_pairs_that_are_too_long() -> None:
    """5 search cells of 3.62 Å in each direction have 4.1 times the volume of a sphere of 7 Å."""
    atoms = rattled(bulk("Si", cubic=True), (6, 6, 6), 0.05, seed=5)
    with LargestTensor() as largest:
        pairs = search(atoms, 7.0, 2**40)
    assert largest.numel < 3 * 4.3 * len(pairs.i)


def test_nothing_between_the_sizes_of_a_graph_and_the_graph_waits_for_the_device() -> None:
    """Meta tensors have no values: an operation that needs one to know the size of its result fails."""
    atoms = STRUCTURES["LiMnO2 rattled"]
    candidates = pair_up(search(atoms, 7.0, 2**20), len(atoms))
    on_meta = type(candidates)(*(tensor.to("meta") for tensor in candidates))
    positions, cell = torch.empty((len(atoms), 3), dtype=torch.float64, device="meta"), torch.empty((3, 3)).to("meta")
    squared = on_meta.squared_lengths(positions, on_meta.shifts(cell.double()))
    graph = NeighborCache(CUTOFFS).graph(atoms)
    counts = count(on_meta, squared < 36.0, squared < 9.0)
    made = assemble(on_meta, counts, Sizes(graph.n_bonds, len(graph.short_bonds), graph.n_angles))
    for name, tensor in made._asdict().items():
        assert tensor.shape == getattr(graph, name).shape, name
        assert tensor.dtype == getattr(graph, name).dtype, name


def test_a_cuda_device_finds_neighbours_itself_and_vesin_does_for_a_cpu() -> None:
    assert isinstance(neighbor_cache(CUTOFFS, 0.5), NeighborCache)
    assert isinstance(neighbor_cache(CUTOFFS, 0.5, device="cpu"), NeighborCache)
    cache = neighbor_cache(CUTOFFS, 0.5, device="cuda:1")
    assert isinstance(cache, DeviceNeighborCache)
    assert (cache.cutoffs, cache.skin, cache.device) == (CUTOFFS, 0.5, torch.device("cuda:1"))


def test_vesin_finds_the_neighbours_of_small_structures_in_batches_for_a_cuda_device() -> None:
    small, large = STRUCTURES["NaCl"], STRUCTURES["NaCl"].repeat(6)
    assert isinstance(neighbor_cache(CUTOFFS, device="cuda", among_others=small), NeighborCache)
    assert isinstance(neighbor_cache(CUTOFFS, device="cuda", among_others=large), DeviceNeighborCache)


def test_graphs_of_several_devices_are_brought_together() -> None:
    """The meta device stands for a second one."""
    graph = NeighborCache(CUTOFFS).graph(STRUCTURES["NaCl"])
    batch = concatenate([graph, graph.to("meta"), graph], "meta")
    assert batch.center.is_meta
    assert batch.n_atoms == 3 * graph.n_atoms
    assert not concatenate([graph, graph], "cpu").center.is_meta
