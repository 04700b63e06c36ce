"""The engine leaves no trace and minds none: memory, threads, modes of torch, what it evaluated before."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ase_fastchgnet import load_checkpoint
from ase_fastchgnet.graph import Cutoffs, GraphBatch, NeighborCache, build_batch
from ase_fastchgnet.model.engine import Engine
from ase_fastchgnet.model.engine import engine as engine_module
from ase_fastchgnet.model.output import ModelOutput
from tests.conftest import PoisonedMemory
from tests.model.backends import MIXED, MODELS, Model, assert_close, assert_same_bits
from tests.structures import STRUCTURES


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return Model(load_checkpoint(request.param))


@pytest.fixture(scope="module")
def newest() -> Model:
    return Model(load_checkpoint("0.3.0"))


def tensors_of(node: Any) -> list[Tensor]:
    """All tensors in dataclasses and tuples."""
    if isinstance(node, Tensor):
        return [node]
    if is_dataclass(node):
        node = tuple(getattr(node, field.name) for field in fields(node))
    return [tensor for child in node for tensor in tensors_of(child)] if isinstance(node, tuple) else []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_repetition_gives_the_same_bits(model: Model, dtype: torch.dtype) -> None:
    engine, graph = Engine(model.checkpoint, dtype=dtype), model.graph(*MIXED)
    first = engine.evaluate(graph)
    engine.evaluate(model.graph("LiMnO2 compressed"))
    assert_same_bits(engine.evaluate(graph), first)
    assert_same_bits(Engine(model.checkpoint, dtype=dtype).evaluate(graph), first)


def test_along_a_trajectory_results_are_those_of_a_new_engine(model: Model) -> None:
    """The engine remembers what follows from the edges of the last graph; consecutive graphs share them or do not."""
    atoms, cache = STRUCTURES["LiMnO2"].copy(), NeighborCache(model.cutoffs, skin=1.0)
    step = np.random.default_rng(0).normal(scale=0.003, size=atoms.positions.shape)
    edges, shared = set(), 0
    for _ in range(30):
        atoms.positions += step
        graph = cache.graph(atoms)
        shared += graph.n_edges in edges
        edges.add(graph.n_edges)
        new_engine, new_graph = Engine(model.checkpoint, dtype=torch.float64), model.graph(atoms)
        assert_same_bits(model.engine.evaluate(graph), new_engine.evaluate(new_graph))
    assert len(edges) > 3  # edges came and went,
    assert shared > 3  # and stayed


def test_what_is_remembered_of_one_graph_is_not_used_for_another(newest: Model) -> None:
    """Same edges elsewhere, in another cell, with other elements, with fewer angles; other edges, but as many."""
    atoms = STRUCTURES["LiMnO2 rattled"]
    first, permuted = newest.graph(atoms), newest.graph(atoms[::-1])
    moved = replace(first, positions=first.positions + 1e-3 * torch.sin(first.positions), cell=1.001 * first.cell)
    other_elements = replace(first, numbers=first.numbers.flip(0))
    shorter = build_batch([atoms], Cutoffs(newest.cutoffs.atom, 2.2))
    fewer_angles = replace(
        first, short_bonds=shorter.short_bonds, angle_ptr=shorter.angle_ptr, edges_of_angle=shorter.edges_of_angle
    )
    assert 0 < fewer_angles.n_angles < first.n_angles
    assert permuted.n_edges == first.n_edges
    batch, smaller = newest.graph(atoms, atoms[::-1]), newest.graph("MgO")
    graphs = [first, moved, fewer_angles, permuted, other_elements, batch, first, smaller]
    for graph in graphs:
        found = newest.engine.evaluate(graph)
        assert_same_bits(found, Engine(newest.checkpoint, dtype=torch.float64).evaluate(graph))
        assert_close(found, newest.reference.evaluate(graph))


def test_results_stay_as_they_are_when_the_engine_goes_on(newest: Model) -> None:
    results = newest.engine.evaluate(newest.graph("LiMnO2"))
    before = [tensor.clone() for tensor in results]
    newest.engine.evaluate(newest.graph("LiMnO2 rattled"))
    assert all(map(torch.equal, results, before))


def test_graph_and_weights_are_left_as_they_were(model: Model) -> None:
    graph = model.graph(*MIXED)
    watched = tensors_of(graph) + tensors_of(model.engine.weights) + tensors_of(model.checkpoint.parameters)
    assert len(watched) > 100
    before = [tensor.clone() for tensor in watched]
    model.engine.evaluate(graph)
    model.reference.evaluate(graph)
    assert all(map(torch.equal, watched, before))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kept_and_recomputed_activations_give_the_same_bits(
    model: Model, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, graph = Engine(model.checkpoint, dtype=dtype), model.graph(*MIXED)
    monkeypatch.setattr(engine_module, "KEEP_BYTES", 0)
    recomputed = engine.evaluate(graph)
    for some_or_all in (5 * 2**20, 20 * 2**20, 2**62):
        monkeypatch.setattr(engine_module, "KEEP_BYTES", some_or_all)
        assert_same_bits(engine.evaluate(graph), recomputed)


def test_keep_bytes_decides_whether_the_gated_mlps_run_twice(newest: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, some or none, told by the matrix products: else the test above could compare like with like."""

    def products() -> int:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            newest.engine.evaluate(newest.graph("LiMnO2"))
        return sum(event.count for event in profile.key_averages() if event.key == "aten::addmm")

    found = []
    for budget in (0, 5 * 2**20, 2**62):
        monkeypatch.setattr(engine_module, "KEEP_BYTES", budget)
        found.append(products())
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize("keep_bytes", [0, 2**62], ids=["recomputed", "kept"])
def test_nothing_is_read_before_it_is_written(
    model: Model, keep_bytes: int, poisoned_memory: PoisonedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "KEEP_BYTES", keep_bytes)
    for graph in (model.graph(*MIXED), model.graph("one atom, no cell"), model.graph("dimer in vacuum")):
        clean = model.engine.evaluate(graph)
        poisoned = poisoned_memory.run(lambda graph=graph: model.engine.evaluate(graph))
        assert all(tensor.isfinite().all() for tensor in clean)
        assert_same_bits(poisoned, clean)
    assert len(poisoned_memory.shapes) > 10


@pytest.mark.parametrize("keep_bytes", [0, 2**62], ids=["recomputed", "kept"])
def test_threads_may_share_one_engine(newest: Model, keep_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "KEEP_BYTES", keep_bytes)
    engine = newest.engine
    graphs = [newest.graph("LiMnO2 rattled"), newest.graph("LiMnO2", "water, no cell"), newest.graph("disordered")]
    expected = [engine.evaluate(graph) for graph in graphs]
    start = threading.Barrier(len(graphs))

    def work(graph: GraphBatch) -> list[ModelOutput]:
        start.wait()
        return [engine.evaluate(graph) for _ in range(8)]

    with ThreadPoolExecutor(max_workers=len(graphs)) as threads:
        for found, alone in zip(threads.map(work, graphs), expected, strict=True):
            for output in found:
                assert_close(output, alone)


def test_a_tape_may_be_differentiated_in_another_thread(newest: Model) -> None:
    graph = newest.graph("LiMnO2 rattled")
    tape = newest.engine.forward(graph)
    with ThreadPoolExecutor(max_workers=1) as thread:
        forces, virial = thread.submit(newest.engine.backward, tape).result()
    assert_close(tape.output._replace(forces=forces, virial=virial), newest.engine.evaluate(graph))


def global_state() -> tuple[Any, ...]:
    return (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.initial_seed(),
        torch.get_rng_state().tolist(),
    )


def in_no_grad(compute: Callable[[], ModelOutput]) -> ModelOutput:
    with torch.no_grad():
        return compute()


def in_inference_mode(compute: Callable[[], ModelOutput]) -> ModelOutput:
    with torch.inference_mode():
        return compute()


def with_float64_as_default(compute: Callable[[], ModelOutput]) -> ModelOutput:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return compute()
    finally:
        torch.set_default_dtype(default)


@pytest.mark.parametrize("mode", [in_no_grad, in_inference_mode, with_float64_as_default])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_modes_of_torch_change_nothing(
    newest: Model, dtype: torch.dtype, mode: Callable[[Callable[[], ModelOutput]], ModelOutput]
) -> None:
    """With engine and graph made inside of the mode or before it, and memory first used in it or before it."""
    engine, graph = Engine(newest.checkpoint, dtype=dtype), newest.graph(*MIXED)
    expected = engine.evaluate(graph)

    def inside() -> ModelOutput:
        return Engine(newest.checkpoint, dtype=dtype).evaluate(newest.graph(*MIXED))

    with ThreadPoolExecutor(max_workers=1) as fresh_thread:
        assert_same_bits(fresh_thread.submit(mode, inside).result(), expected)
        assert_same_bits(fresh_thread.submit(inside).result(), expected)
    assert_same_bits(mode(inside), expected)
    assert_same_bits(mode(lambda: engine.evaluate(graph)), expected)
    assert_same_bits(engine.evaluate(graph), expected)


@pytest.mark.parametrize("grad", [True, False])
def test_the_state_of_torch_is_left_alone(newest: Model, grad: bool) -> None:
    graph = newest.graph("LiMnO2")
    with torch.set_grad_enabled(grad):
        before = global_state()
        Engine(newest.checkpoint).evaluate(graph)
        assert global_state() == before
