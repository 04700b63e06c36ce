"""Predictions do not depend on who finds the neighbours; the cache of a CUDA device runs on the CPU here."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from structures import STRUCTURES

from ase_fastchgnet import FastCHGNet, calculator
from ase_fastchgnet.evaluation import captured, chunk, evaluator, moving
from ase_fastchgnet.evaluation.evaluator import StructureTooLargeError, evaluate
from ase_fastchgnet.graph import Cutoffs, DeviceNeighborCache, device_cache

NAMES = ["NaCl", "one atom, no cell", "slab on its side", "LiMnO2"]


def by_the_device(
    cutoffs: Cutoffs, skin: float = 0.0, *, device: torch.device, among_others: Atoms | None = None
) -> DeviceNeighborCache:
    return DeviceNeighborCache(cutoffs, skin, device=device)


@pytest.fixture
def graphs_by_the_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def switch() -> None:
        monkeypatch.setattr(captured, "LARGEST", 0)
        for module in (calculator, chunk, evaluator, moving):
            monkeypatch.setattr(module, "neighbor_cache", by_the_device)

    return switch


def trajectory(calc: FastCHGNet) -> list[np.ndarray]:
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.calc = calc
    found = []
    for step in range(4):
        atoms.rattle(0.05, seed=step)
        found += [atoms.get_forces(), atoms.get_stress(), atoms.get_potential_energies()]
    return found


def many() -> list[np.ndarray]:
    structures = [STRUCTURES[name] for name in NAMES]
    options = {"on_isolated_atoms": "ignore", "device": "cpu"}
    batch = FastCHGNet(**options).moving_batch()
    moved = batch.evaluate(dict(enumerate(structures)))
    chunked = chunk.evaluate_chunk(
        FastCHGNet(**options).chunk_options(), [chunk.Item(k, atoms) for k, atoms in enumerate(structures)]
    )
    predictions = [*evaluate(structures, **options), *moved.values(), *chunked.outcomes]
    return [array for p in predictions for array in (p.energies, p.forces, p.magmoms)]


@pytest.mark.parametrize("run", [lambda: trajectory(FastCHGNet(device="cpu")), many], ids=["trajectory", "many"])
def test_predictions_have_the_same_bits(
    run: Callable[[], list[np.ndarray]], graphs_by_the_device: Callable[[], None]
) -> None:
    expected = run()
    graphs_by_the_device()
    for one, other in zip(run(), expected, strict=True):
        assert np.array_equal(one, other)


def test_a_graph_too_large_for_the_device_is_a_structure_too_large(
    graphs_by_the_device: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(positions: torch.Tensor, *arguments: object) -> object:
        if len(positions) == 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return find_pairs(positions, *arguments)

    find_pairs = device_cache.find_pairs
    monkeypatch.setattr(device_cache, "find_pairs", full)
    graphs_by_the_device()
    small, large = STRUCTURES["NaCl"], STRUCTURES["LiMnO2"]
    with pytest.raises(StructureTooLargeError, match="system 1: the graph of 8 atoms does not fit into the memory"):
        evaluate([small, large], device="cpu")
    found = FastCHGNet(device="cpu").moving_batch().evaluate({4: large, 5: small})
    assert isinstance(found[4], StructureTooLargeError)
    assert np.isfinite(found[5].energy)
    items = [chunk.Item(7, large), chunk.Item(8, small)]
    outcomes = chunk.evaluate_chunk(FastCHGNet(device="cpu").chunk_options(), items).outcomes
    assert str(outcomes[0]).startswith("the graph of 8 atoms does not fit")
    assert np.isfinite(outcomes[1].energy)


def test_an_atom_that_stays_alone_is_refused_every_time_and_warned_of_once() -> None:
    atoms = Atoms("H3", positions=[[0, 0, 0], [0, 0, 0.8], [0, 0, 9]])
    cache = DeviceNeighborCache(Cutoffs(), skin=1.0)
    strict, lenient = moving.IsolatedGuard("error", 6.0), moving.IsolatedGuard("warn", 6.0)
    for step in range(3):
        atoms.positions[0, 0] += 0.01
        graph = cache.graph(atoms)
        with pytest.raises(ValueError, match="atom 2 has no neighbour"):
            strict.check(graph)
        if step == 0:
            with pytest.warns(UserWarning, match="atom 2 has no neighbour"):
                lenient.check(graph)
        else:
            lenient.check(graph)
    atoms.positions[1, 2] = -9
    with pytest.warns(UserWarning, match="atoms 0, 1, 2 have no neighbour"):
        lenient.check(cache.graph(atoms))
