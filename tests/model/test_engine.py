"""The engine computes what the reference computes, whatever the batch, the mode of torch or the memory it finds."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any

import pytest
import torch
from torch import Tensor

from ase_fastchgnet import load_checkpoint
from ase_fastchgnet.graph import Cutoffs, GraphBatch, build_batch
from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.model.config import ModelConfig
from ase_fastchgnet.model.engine import Engine
from ase_fastchgnet.model.engine import engine as engine_module
from ase_fastchgnet.model.output import ModelOutput
from ase_fastchgnet.model.parameters import Parameters, stock_shapes
from ase_fastchgnet.model.reference import ReferenceModel
from tests.closeness import assert_no_worse_than_plain
from tests.conftest import PoisonedMemory
from tests.structures import STRUCTURES

MODELS = ("0.3.0", "0.2.0", "r2scan")
# With and without angles, edges and a cell; one atom, a dimer; periodic along three, two, one and no axes.
MIXED = [
    "K bcc, no bond below 3 Å",
    "one atom, no cell",
    "LiMnO2 rattled",
    "dimer in vacuum",
    "dimer too far to bond",
    "Fe bcc, one atom",
    "wire",
    "slab on its side",
    "disordered",
    "Cu gas, atoms 7 Å apart",
    "water, no cell",
]
# A force is a sum of 100 edges' gradients of up to 10 eV/Å, each rounded some 1000 times at 1.1e-16 on its way through
# four blocks: 1e-12 at random, a few at worst. A single float32 rounding on that way would make 1e-7.
TOLERANCE = 1e-11


@dataclass(frozen=True)
class Model:
    checkpoint: Checkpoint

    @property
    def cutoffs(self) -> Cutoffs:
        return Cutoffs(self.checkpoint.config.atom_cutoff, self.checkpoint.config.bond_cutoff)

    @cached_property
    def engine(self) -> Engine:
        return Engine(self.checkpoint, dtype=torch.float64)

    @cached_property
    def reference(self) -> ReferenceModel:
        return ReferenceModel(self.checkpoint, dtype=torch.float64)

    def graph(self, *names: str) -> GraphBatch:
        return build_batch([STRUCTURES[name] for name in names], self.cutoffs)


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return Model(load_checkpoint(request.param))


@pytest.fixture(scope="module")
def newest() -> Model:
    return Model(load_checkpoint("0.3.0"))


@pytest.fixture(scope="module")
def oldest() -> Model:
    return Model(load_checkpoint("0.2.0"))


def assert_close(found: ModelOutput, expected: ModelOutput, tolerance: float = TOLERANCE) -> None:
    """Within `tolerance`, or that part of the largest value if it is larger than 1 (eV, μ_B, eV/Å)."""
    for name, a, b in zip(ModelOutput._fields, found, expected, strict=True):
        assert a is not None, name
        assert a.dtype == b.dtype == torch.float64, name
        assert a.shape == b.shape, name
        assert a.isfinite().all(), name
        error, scale = float((a - b).abs().max()), max(1.0, float(b.abs().max()))
        assert error <= tolerance * scale, f"{name}: {error:.1e} at a scale of {scale:.1e}"


def assert_same_bits(found: ModelOutput, expected: ModelOutput) -> None:
    for name, a, b in zip(ModelOutput._fields, found, expected, strict=True):
        assert torch.equal(a, b), name


def systems(output: ModelOutput, graph: GraphBatch) -> Iterator[ModelOutput]:
    """The output of a batch taken apart."""
    for system, (start, end) in enumerate(zip(graph.atom_ptr[:-1], graph.atom_ptr[1:], strict=True)):
        atoms, one = slice(int(start), int(end)), slice(system, system + 1)
        yield ModelOutput(
            output.atom_energies[atoms],
            output.magmoms[atoms],
            output.site_embeddings[atoms],
            output.crystal_embeddings[one],
            output.forces[atoms],
            output.virial[one],
        )


def tensors_of(node: Any) -> list[Tensor]:
    """All tensors in dataclasses and tuples."""
    if isinstance(node, Tensor):
        return [node]
    if is_dataclass(node):
        node = tuple(getattr(node, field.name) for field in fields(node))
    return [tensor for child in node for tensor in tensors_of(child)] if isinstance(node, tuple) else []


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_engine_equals_the_reference(model: Model, name: str) -> None:
    graph = model.graph(name)
    assert_close(model.engine.evaluate(graph), model.reference.evaluate(graph))


def test_the_engine_equals_the_reference_on_a_mixed_batch(model: Model) -> None:
    graph = model.graph(*MIXED)
    assert_close(model.engine.evaluate(graph), model.reference.evaluate(graph))


def test_the_mixed_batch_is_mixed(newest: Model) -> None:
    graphs = [newest.graph(name) for name in MIXED]
    assert {(g.n_edges > 0, len(g.short_bonds) > 0, g.n_angles > 0) for g in graphs} == {
        (False, False, False),
        (True, False, False),
        (True, True, False),
        (True, True, True),
    }


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "reversed"])
def test_a_system_does_not_depend_on_the_others_in_its_batch(model: Model, order: int) -> None:
    """In stock chgnet it does: in 0.2.0 systems without angles get a bias when one of the batch has angles."""
    names = MIXED[::order]
    graph = model.graph(*names)
    for name, together in zip(names, systems(model.engine.evaluate(graph), graph), strict=True):
        assert_close(together, model.engine.evaluate(model.graph(name)))


@pytest.mark.parametrize("alone", ["K bcc, no bond below 3 Å", "dimer in vacuum", "Xe"])
def test_a_system_without_angles_gets_no_bias_from_one_with_angles(oldest: Model, alone: str) -> None:
    """0.2.0 has a bias in each BondConv, which stock skips where there is no angle, but not within a batch."""
    assert all(float(conv.out.bias.abs().max()) > 0.01 for conv in oldest.checkpoint.parameters.bond_convs)
    assert oldest.graph(alone).n_edges > 0
    assert oldest.graph(alone).n_angles == 0
    expected = oldest.reference.evaluate(oldest.graph(alone))
    for names in ([alone, "MgO"], ["MgO", alone], ["MgO", alone, "LiMnO2"]):
        graph = oldest.graph(*names)
        assert_close(list(systems(oldest.engine.evaluate(graph), graph))[names.index(alone)], expected)


def random_model(**changes: Any) -> Model:
    """A configuration that was never released, with random weights."""
    config = ModelConfig(**(load_checkpoint("0.3.0").config.to_dict() | {"n_radial": 7, "n_angular": 5} | changes))
    random = torch.Generator().manual_seed(1)

    def weight(name: str, shape: tuple[int, ...]) -> Tensor:
        x = torch.randn(shape, generator=random, dtype=torch.float64)
        if "frequencies" in name:
            return (torch.pi if "rbf" in name else 1.0) * torch.arange(1, len(x) + 1) + 0.05 * x
        return x if "embedding" in name else x / shape[-1] ** 0.5

    state = {name: weight(name, shape) for name, shape in stock_shapes(config).items()}
    parameters = Parameters.from_state_dict(state, config)
    return Model(Checkpoint(name="random", config=config, parameters=parameters, sha256="0" * 64))


@pytest.mark.parametrize("n_blocks", [2, 3, 5])
@pytest.mark.parametrize("gated_norm", [True, False])
@pytest.mark.parametrize("mlp_out_bias", [True, False])
def test_the_engine_equals_the_reference_for_any_configuration(
    n_blocks: int, gated_norm: bool, mlp_out_bias: bool
) -> None:
    model = random_model(
        n_blocks=n_blocks, gated_norm=gated_norm, readout_norm=not gated_norm, mlp_out_bias=mlp_out_bias,
        envelope_exponent=6, bond_cutoff=2.5, n_readout_hidden=1,
    )  # fmt: skip
    graph = model.graph(*MIXED)
    # Random weights, unlike trained ones, let features grow from block to block.
    assert_close(model.engine.evaluate(graph), model.reference.evaluate(graph), 10 * TOLERANCE)


def test_float32_is_no_worse_than_plain(model: Model) -> None:
    names = ["LiMnO2 rattled", "disordered", "slab on its side", "ethanol in a periodic box", "BaFe2P2O8", "MgO hot"]
    for name in names:
        graph = model.graph(name)
        found = Engine(model.checkpoint).evaluate(graph)
        plain = ReferenceModel(model.checkpoint).evaluate(graph)
        exact = model.reference.evaluate(graph)
        for a, b, c in zip(found, plain, exact, strict=True):
            assert_no_worse_than_plain(a, b, c, scale=1.0)  # eV, eV/Å, μ_B: sums of terms of that size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_gradient_the_rest_is_the_same(model: Model, dtype: torch.dtype) -> None:
    engine, graph = Engine(model.checkpoint, dtype=dtype), model.graph(*MIXED)
    full, forward_only = engine.evaluate(graph), engine.evaluate(graph, gradient=False)
    assert forward_only.forces is None
    assert forward_only.virial is None
    assert_same_bits(forward_only._replace(forces=full.forces, virial=full.virial), full)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forward_then_backward_is_evaluate(model: Model, dtype: torch.dtype) -> None:
    """Even if other graphs are evaluated in between, and as often as one likes."""
    engine, graph = Engine(model.checkpoint, dtype=dtype), model.graph(*MIXED)
    whole = engine.evaluate(graph)
    tape = engine.forward(graph)
    assert tape.output.forces is None
    engine.evaluate(model.graph("disordered"))
    engine.forward(model.graph("LiMnO2"))
    for _ in range(2):
        forces, virial = engine.backward(tape)
        assert_same_bits(tape.output._replace(forces=forces, virial=virial), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_repetition_gives_the_same_bits(model: Model, dtype: torch.dtype) -> None:
    engine, graph = Engine(model.checkpoint, dtype=dtype), model.graph(*MIXED)
    first = engine.evaluate(graph)
    engine.evaluate(model.graph("LiMnO2 compressed"))
    assert_same_bits(engine.evaluate(graph), first)
    assert_same_bits(Engine(model.checkpoint, dtype=dtype).evaluate(graph), first)


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
    monkeypatch.setattr(engine_module, "KEEP_BYTES", 2**62)
    assert_same_bits(engine.evaluate(graph), recomputed)


def test_keep_bytes_decides_whether_the_gated_mlps_run_twice(newest: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by the number of matrix products: without it the test above could compare like with like."""

    def products() -> int:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            newest.engine.evaluate(newest.graph("LiMnO2"))
        return sum(event.count for event in profile.key_averages() if event.key == "aten::addmm")

    monkeypatch.setattr(engine_module, "KEEP_BYTES", 2**62)
    kept = products()
    monkeypatch.setattr(engine_module, "KEEP_BYTES", 0)
    assert products() > kept


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
    model: Model, dtype: torch.dtype, mode: Callable[[Callable[[], ModelOutput]], ModelOutput]
) -> None:
    """With engine and graph made inside of the mode or before it, and memory first used in it or before it."""
    engine, graph = Engine(model.checkpoint, dtype=dtype), model.graph(*MIXED)
    expected = engine.evaluate(graph)

    def inside() -> ModelOutput:
        return Engine(model.checkpoint, dtype=dtype).evaluate(model.graph(*MIXED))

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
