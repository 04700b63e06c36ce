"""A dataset holds the same graphs as build_batch makes, in memory and on disk, and is built again when it must be."""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from structures import STRUCTURES

from ase_fastchgnet.graph import Cutoffs, build_batch
from ase_fastchgnet.graph.size import size_of
from ase_fastchgnet.training.dataset import Batch, GraphDataset, prefetch
from ase_fastchgnet.training.labels import Labelled

NAMES = [name for name, atoms in STRUCTURES.items() if len(atoms) <= 30]  # slabs, molecules, an atom without edges …


def labelled(atoms: Atoms, seed: int) -> Labelled:
    """With random labels; of every second one, only some."""
    random = np.random.default_rng(seed)
    known = seed % 2 == 0
    return Labelled(
        atoms=atoms,
        energy=float(random.normal()),
        forces=random.normal(size=(len(atoms), 3)) if known else None,
        stress=random.normal(size=(3, 3)) if known and atoms.pbc.all() else None,
        magmoms=random.random(len(atoms)) if known else None,
        source=f"test@{seed}",
    )


@pytest.fixture(scope="module")
def data() -> list[Labelled]:
    return [labelled(STRUCTURES[name], seed) for seed, name in enumerate(NAMES)]


@pytest.fixture(scope="module", params=["memory", "disk"])
def dataset(
    request: pytest.FixtureRequest, data: list[Labelled], tmp_path_factory: pytest.TempPathFactory
) -> GraphDataset:
    folder = tmp_path_factory.mktemp("graphs") if request.param == "disk" else None
    return GraphDataset.build(data, Cutoffs(), folder)


def assert_same(batch: Batch, other: Batch) -> None:
    for one, two in zip(batch.labels, other.labels, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)
    for field in fields(batch.graph):
        one, two = getattr(batch.graph, field.name), getattr(other.graph, field.name)
        assert one.dtype == two.dtype, field.name
        assert torch.equal(one, two), field.name


@pytest.mark.parametrize("seed", range(3))
def test_a_batch_has_the_bits_of_one_that_is_built_from_the_structures(
    dataset: GraphDataset, data: list[Labelled], seed: int
) -> None:
    indices = np.random.default_rng(seed).choice(len(data), 9, replace=seed > 0).tolist()
    batch = dataset.batch(indices)
    built = build_batch([data[i].atoms for i in indices], Cutoffs())
    assert_same(Batch(built, batch.labels), batch)
    assert batch.labels.energies.tolist() == [data[i].energy for i in indices]
    start = 0
    for k, i in enumerate(indices):
        one, rows = data[i], slice(start, start + len(data[i].atoms))
        start = rows.stop
        for found, given in [
            (batch.labels.forces[rows], one.forces),
            (batch.labels.stress[k], one.stress),
            (batch.labels.magmoms[rows], one.magmoms),
        ]:
            assert found.isnan().all() if given is None else np.array_equal(found, given)


def test_sizes_are_those_of_the_graphs(dataset: GraphDataset, data: list[Labelled]) -> None:
    assert len(dataset) == len(data)
    assert [tuple(size) for size in dataset.sizes] == [size_of(one.atoms, Cutoffs())[1:] for one in data]


def test_what_is_done_to_a_batch_leaves_the_dataset_as_it_was(dataset: GraphDataset) -> None:
    batch, before = dataset.batch([0]), dataset.batch([0])
    for tensor in [*batch.labels, *(getattr(batch.graph, field.name) for field in fields(batch.graph))]:
        tensor.zero_()
    assert_same(dataset.batch([0]), before)


def test_the_same_data_are_built_once(data: list[Labelled], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new" / "graphs"
    first = GraphDataset.build(data, Cutoffs(), folder)
    monkeypatch.setattr("ase_fastchgnet.training.dataset.NeighborCache", None)  # a graph cannot be built any more
    second = GraphDataset.build(data, Cutoffs(), folder)
    assert_same(first.batch(range(len(data))), second.batch(range(len(data))))


def changed_energy(data: list[Labelled]) -> list[Labelled]:
    return [replace(data[0], energy=3.25), *data[1:]]


def moved_atom(data: list[Labelled]) -> list[Labelled]:
    atoms = data[0].atoms.copy()
    atoms.positions[0, 0] += 1e-9
    return [replace(data[0], atoms=atoms), *data[1:]]


def forgotten_forces(data: list[Labelled]) -> list[Labelled]:
    return [replace(data[0], forces=None), *data[1:]]


def other_order(data: list[Labelled]) -> list[Labelled]:
    return data[::-1]


@pytest.mark.parametrize("change", [changed_energy, moved_atom, forgotten_forces, other_order])
def test_other_data_are_built_again(data: list[Labelled], tmp_path: Path, change: object) -> None:
    data = data[:4]
    old = GraphDataset.build(data, Cutoffs(), tmp_path)
    before = old.batch(range(4))
    assert callable(change)
    other = change(data)
    assert_same(
        GraphDataset.build(other, Cutoffs(), tmp_path).batch(range(4)),
        GraphDataset.build(other, Cutoffs(), None).batch(range(4)),
    )
    assert_same(old.batch(range(4)), before)  # who has the old files open keeps them


def test_another_cut_off_and_an_unfinished_build_are_built_again(data: list[Labelled], tmp_path: Path) -> None:
    GraphDataset.build(data[:4], Cutoffs(), tmp_path)
    shorter = GraphDataset.build(data[:4], Cutoffs(5.0, 3.0), tmp_path)
    before = shorter.batch([0, 1, 2, 3])
    assert [tuple(size) for size in shorter.sizes] == [size_of(one.atoms, Cutoffs(5.0, 3.0))[1:] for one in data[:4]]
    (tmp_path / "dataset.json").unlink()  # it is written last
    (tmp_path / "positions.npy").write_bytes(b"half a file")
    again = GraphDataset.build(data[:4], Cutoffs(5.0, 3.0), tmp_path)
    assert_same(again.batch([0, 1, 2, 3]), before)
    assert json.loads((tmp_path / "dataset.json").read_text())["structures"] == 4
    assert not list(tmp_path.glob("building-*"))


def test_structures_without_edges_only_can_be_stored(tmp_path: Path) -> None:
    alone = [labelled(STRUCTURES["one atom, no cell"], 0)]
    batch = GraphDataset.build(alone, Cutoffs(), tmp_path).batch([0])
    assert (batch.graph.n_atoms, batch.graph.n_edges, batch.graph.n_angles) == (1, 0, 0)
    assert_same(GraphDataset.build(alone, Cutoffs(), tmp_path).batch([0]), batch)


def test_errors_name_the_structure(data: list[Labelled], tmp_path: Path) -> None:
    bad = replace(data[0], atoms=Atoms("Og"), source="file@7")
    with pytest.raises(ValueError, match="file@7: system 0: "):
        GraphDataset.build([data[0], bad], Cutoffs(), tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no labelled structures"):
        GraphDataset.build([], Cutoffs(), None)
    with pytest.raises(ValueError, match="no structures"):
        GraphDataset.build(data[:1], Cutoffs(), None).batch([])


def test_prefetching_gives_the_same_batches_in_order(dataset: GraphDataset) -> None:
    chosen = [[0, 1], [2], [3, 0, 1], [4], [5, 6]]
    for ahead in (0, 2, 9):
        fetched = list(prefetch(dataset, chosen, ahead=ahead))
        for batch, indices in zip(fetched, chosen, strict=True):
            assert_same(batch, dataset.batch(indices))


def test_prefetching_goes_ahead_by_so_many_and_stops_with_the_loop(dataset: GraphDataset) -> None:
    asked: list[int] = []

    def indices() -> Iterator[Sequence[int]]:
        for k in range(100):
            asked.append(k)
            yield [0]

    batches = prefetch(dataset, indices(), ahead=3)
    next(batches)
    assert asked == [0, 1, 2, 3]
    batches.close()
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_errors_of_the_thread_reach_the_loop(dataset: GraphDataset) -> None:
    batches = prefetch(dataset, [[0], [10_000]])
    next(batches)
    with pytest.raises(IndexError):
        next(batches)
