"""The engine computes what the reference computes, whatever else is in the batch."""

import pytest
import torch

from ase_fastchgnet import load_checkpoint
from ase_fastchgnet.model.engine import Engine
from ase_fastchgnet.model.reference import ReferenceModel
from tests.closeness import assert_no_worse_than_plain
from tests.model.backends import (
    MIXED,
    MODELS,
    TOLERANCE,
    Model,
    assert_close,
    assert_same_bits,
    random_checkpoint,
    systems,
)
from tests.structures import STRUCTURES


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return Model(load_checkpoint(request.param))


@pytest.fixture(scope="module")
def newest() -> Model:
    return Model(load_checkpoint("0.3.0"))


@pytest.fixture(scope="module")
def oldest() -> Model:
    return Model(load_checkpoint("0.2.0"))


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


@pytest.mark.parametrize("n_blocks", [2, 3, 5])
@pytest.mark.parametrize("gated_norm", [True, False])
@pytest.mark.parametrize("mlp_out_bias", [True, False])
@pytest.mark.parametrize("parallel_updates", [True, False])
def test_the_engine_equals_the_reference_for_any_configuration(
    n_blocks: int, gated_norm: bool, mlp_out_bias: bool, parallel_updates: bool
) -> None:
    checkpoint = random_checkpoint(
        n_blocks=n_blocks, gated_norm=gated_norm, readout_norm=not gated_norm, mlp_out_bias=mlp_out_bias,
        envelope_exponent=6, bond_cutoff=2.5, n_readout_hidden=1, parallel_updates=parallel_updates,
    )  # fmt: skip
    model = Model(checkpoint)
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
