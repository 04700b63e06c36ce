"""The network: the released models' outputs, and gradients that are those of differentiating twice by autograd."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from ase_fastchgnet.graph import GraphBatch
from ase_fastchgnet.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ase_fastchgnet.model.config import REFERENCE_ENERGIES
from ase_fastchgnet.model.engine import Engine
from ase_fastchgnet.model.network import Network, NetworkOutput
from ase_fastchgnet.model.output import ModelOutput
from ase_fastchgnet.model.parameters import Parameters
from tests.closeness import assert_no_worse_than_plain
from tests.model.backends import MIXED, MODELS, TOLERANCE, Model, random_checkpoint
from tests.model.double_backward import gradients, plain_network, weighted_sum, weights_of

Mode = Literal["conservative", "direct"]

# Few edges, and all there is to go wrong: without angles, without edges, without a cell, one atom, skewed, of vacuum.
SMALL = (
    "K bcc, no bond below 3 Å",
    "one atom, no cell",
    "LiMnO2 scattered",
    "dimer in vacuum",
    "Fe bcc, one atom",
    "wire",
    "Cu gas, atoms 7 Å apart",
)
VARIANTS: dict[str, Callable[[], Checkpoint]] = {
    **{name: lambda name=name: load_checkpoint(name) for name in MODELS},  # type: ignore[misc]
    "parallel updates": lambda: random_checkpoint(parallel_updates=True),
    "two blocks, biases": lambda: random_checkpoint(n_blocks=2, mlp_out_bias=True),
    "no norms, biases": lambda: random_checkpoint(gated_norm=False, readout_norm=False, mlp_out_bias=True),
}
DIRECT: dict[str, Callable[[], Checkpoint]] = {
    "0.3.0-direct": lambda: load_checkpoint("0.3.0-direct"),
    "parallel updates, biases": lambda: random_checkpoint(
        direct_readout=True, parallel_updates=True, mlp_out_bias=True
    ),
    "two blocks, no norms": lambda: random_checkpoint(
        direct_readout=True, n_blocks=2, gated_norm=False, readout_norm=False
    ),
}


@cache
def small(variant: str) -> tuple[Model, GraphBatch]:
    model = Model((VARIANTS | DIRECT)[variant]())
    return model, model.graph(*SMALL)


@cache
def exact_gradients(variant: str) -> dict[str, Tensor]:
    """By autograd through the reference, in float64."""
    model, graph = small(variant)
    weights = weights_of(model.checkpoint)
    return gradients(weighted_sum(plain_network(model.checkpoint, weights, graph)), weights)


def network_gradients(network: Network, graph: GraphBatch, forces: Mode = "conservative") -> dict[str, Tensor]:
    return gradients(weighted_sum(network(graph, forces=forces)), dict(network.named_parameters()))


def as_network_output(found: ModelOutput, graph: GraphBatch) -> NetworkOutput:
    energies = torch.zeros(graph.n_systems, dtype=torch.float64).index_add(0, graph.system_of_atom, found.atom_energies)
    assert found.virial is not None
    volume = graph.volume()
    stress = torch.zeros_like(found.virial)
    stress[volume > 0] = found.virial[volume > 0] / volume[volume > 0, None, None]
    return NetworkOutput(energies, found.magmoms, found.forces, stress)


def assert_same_output(found: NetworkOutput, expected: NetworkOutput) -> None:
    for name, a, b in zip(NetworkOutput._fields, found, expected, strict=True):
        assert a is not None, name
        assert a.dtype == torch.float64, name
        assert a.shape == b.shape, name
        scale = max(1.0, float(b.detach().abs().max()))
        assert (a - b).abs().max() <= TOLERANCE * scale, name


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = TOLERANCE) -> None:
    """Within `tolerance` of the largest entry of each: as many roundings as of forces, see `backends`."""
    for name, gradient in found.items():
        error, scale = float((gradient - expected[name]).abs().max()), float(expected[name].abs().max())
        assert error <= tolerance * scale, f"{name}: {error:.1e} at a scale of {scale:.1e}"


@pytest.mark.parametrize("name", MODELS)
def test_it_predicts_what_the_engine_and_the_reference_predict(name: str) -> None:
    model = Model(load_checkpoint(name))
    graph = model.graph(*MIXED)
    found = Network(model.checkpoint, dtype=torch.float64)(graph, forces="conservative")
    assert_same_output(found, as_network_output(model.engine.evaluate(graph), graph))
    assert_same_output(found, as_network_output(model.reference.evaluate(graph), graph))


@pytest.mark.parametrize("variant", DIRECT)
def test_direct_predictions_are_those_of_the_engine(variant: str) -> None:
    model, _ = small(variant)
    graph = model.graph(*MIXED)
    engine = Engine(model.checkpoint, dtype=torch.float64, forces="direct")
    found = Network(model.checkpoint, dtype=torch.float64)(graph, forces="direct")
    assert_same_output(found, as_network_output(engine.evaluate(graph), graph))


@pytest.mark.parametrize("forces", ["conservative", "direct", None])
def test_predictions_are_the_same_where_nothing_is_differentiated(forces: Mode | None) -> None:
    """Under `no_grad`, in inference mode and with frozen weights; a direct readout differentiates all the same."""
    model, graph = small("0.3.0-direct")
    network = Network(model.checkpoint, dtype=torch.float64)
    expected = network(graph, forces=forces)
    assert expected.energies.requires_grad
    with torch.no_grad():
        without = network(graph, forces=forces)
    with torch.inference_mode():
        inferred = network(graph, forces=forces)
    frozen = network.requires_grad_(False)(graph, forces=forces)
    for found in (without, inferred, frozen):
        assert not found.energies.requires_grad
        for a, b in zip(found, expected, strict=True):
            assert (a is None) == (b is None)
            assert a is None or (a - b).abs().max() <= TOLERANCE * max(1.0, float(b.detach().abs().max()))


def test_direct_forces_of_a_model_without_a_readout_are_refused() -> None:
    model, graph = small("0.3.0")
    with pytest.raises(ValueError, match="no weights for direct forces"):
        Network(model.checkpoint)(graph, forces="direct")


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_those_of_differentiating_the_reference_twice(variant: str) -> None:
    model, graph = small(variant)
    network = Network(model.checkpoint, dtype=torch.float64)
    found, expected = network_gradients(network, graph), exact_gradients(variant)
    assert_same_gradients(found, expected)
    frozen = expected.keys() - found.keys()
    assert frozen == {
        name for name in expected if name.startswith(f"angle_layers.{model.checkpoint.config.n_blocks - 2}.")
    }
    assert all((expected[name] == 0).all() for name in frozen)


@pytest.mark.parametrize("structure", ["K bcc, no bond below 3 Å", "one atom, no cell"])
def test_gradients_of_a_batch_without_angles_too(structure: str) -> None:
    """Here 0.2.0 skips the bond convolutions, biases included."""
    model, _ = small("0.2.0")
    graph, weights = model.graph(structure), weights_of(model.checkpoint)
    expected = gradients(weighted_sum(plain_network(model.checkpoint, weights, graph)), weights)
    found = network_gradients(Network(model.checkpoint, dtype=torch.float64), graph)
    assert_same_gradients(found, expected)
    assert not any(found[name].any() for name in found if name.startswith("bond_conv"))


@pytest.mark.parametrize("variant", MODELS)
def test_gradients_in_float32_are_no_worse_than_those_of_the_reference(variant: str) -> None:
    model, graph = small(variant)
    weights = weights_of(model.checkpoint, torch.float32)
    plain = gradients(weighted_sum(plain_network(model.checkpoint, weights, graph)), weights)
    found = network_gradients(Network(model.checkpoint), graph)
    exact = exact_gradients(variant)
    for name, gradient in found.items():
        assert_no_worse_than_plain(gradient, plain[name], exact[name])


def test_what_is_not_differentiated_adds_nothing() -> None:
    """A loss of energies and magnetic moments has the same gradients with forces in the output and without."""
    model, graph = small("0.3.0")
    network = Network(model.checkpoint, dtype=torch.float64)
    found = network(graph, forces="conservative")
    with_forces = gradients(weighted_sum(found._replace(forces=None, stress=None)), dict(network.named_parameters()))
    without = gradients(weighted_sum(network(graph, forces=None)), dict(network.named_parameters()))
    assert_same_gradients(with_forces, without)


@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_freezing_some_weights_leaves_the_gradients_of_the_others(forces: Mode) -> None:
    model, graph = small("0.3.0-direct")
    network = Network(model.checkpoint, dtype=torch.float64)
    every = network_gradients(network, graph, forces)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name.startswith(("mlp.", "atom_conv_layers.1.", "direct")))
    some = network_gradients(network, graph, forces)
    assert 0 < len(some) < len(every)
    assert_same_gradients(some, every)


@pytest.mark.parametrize("part", ["trunk", "readout", "bond frequencies"])
@pytest.mark.parametrize("variant", DIRECT)
def test_direct_gradients_are_difference_quotients_of_what_the_engine_computes(variant: str, part: str) -> None:
    """Along a random direction of many weights, which moves each by some 4e-6 of its size.

    A quotient and that of half the step, combined so that truncation is of fourth order: below 5e-8, found by halving
    again. Rounding: 1e-14 of a sum of some 30 over 4e-6, a few of them. Slopes are 5 to 5000.
    """
    model, _ = small(variant)
    graph = model.graph("LiMnO2 scattered", "K bcc, no bond below 3 Å", "wire")
    network = Network(model.checkpoint, dtype=torch.float64)
    found = network_gradients(network, graph, "direct")
    chosen = [name for name in found if part_of(name) == part]
    random = torch.Generator().manual_seed(5)
    state = {name: x.detach() for name, x in network.state_dict().items()}
    way = {n: torch.randn(state[n].shape, generator=random, dtype=torch.float64) * size_of(state[n]) for n in chosen}

    def scalar(h: float) -> float:
        moved = state | {name: state[name] + h * way[name] for name in chosen}
        checkpoint = with_weights(model.checkpoint, moved)
        output = Engine(checkpoint, dtype=torch.float64, forces="direct").evaluate(graph)
        return float(weighted_sum(as_network_output(output, graph)))

    def quotient(h: float) -> float:
        return (scalar(h) - scalar(-h)) / (2 * h)

    slope = sum(float((found[name] * way[name]).sum()) for name in chosen)
    assert abs(slope) > 1
    assert abs(slope - (4 * quotient(2e-6) - quotient(4e-6)) / 3) <= 3e-7


def size_of(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def part_of(name: str) -> str:
    if name.startswith("direct_readout"):
        return "readout"
    return "bond frequencies" if "rbf_expansion" in name else "trunk"


def with_weights(checkpoint: Checkpoint, state: dict[str, Tensor]) -> Checkpoint:
    return replace(checkpoint, parameters=Parameters.from_state_dict(state, checkpoint.config))


@pytest.mark.parametrize("structure", ["K bcc, no bond below 3 Å", "one atom, no cell", "LiMnO2 scattered"])
@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_every_trainable_weight_has_a_gradient_whatever_the_batch(forces: Mode, structure: str) -> None:
    """As DistributedDataParallel, which waits for all of them, needs it."""
    model, _ = small("0.3.0-direct")
    network = Network(model.checkpoint).train()
    weighted_sum(network(model.graph(structure), forces=forces)).backward()
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            assert name == REFERENCE_ENERGIES or name.startswith("angle_layers.2."), name
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_go_to_a_checkpoint_a_file_and_back(dtype: torch.dtype, tmp_path: Path) -> None:
    network = Network(load_checkpoint("0.3.0-direct"), dtype=dtype)
    step(network)
    trained = network.checkpoint("trained")
    assert trained.name == "trained"
    assert trained.config == network.config
    save_checkpoint(trained, tmp_path / "trained.safetensors")
    for again in (trained, load_checkpoint(tmp_path / "trained.safetensors")):
        state = Network(again, dtype=dtype).state_dict()
        assert all(torch.equal(state[name], x) for name, x in network.state_dict().items())
    step(network)
    assert network.checkpoint("trained").sha256 != trained.sha256


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_checkpoint_stays_as_it_is_while_training_goes_on(dtype: torch.dtype) -> None:
    network = Network(load_checkpoint("0.3.0"), dtype=dtype)
    trained = network.checkpoint("trained")
    before = {name: x.clone() for name, x in trained.parameters.to_state_dict(trained.config).items()}
    step(network)
    after = trained.parameters.to_state_dict(trained.config)
    assert all(torch.equal(after[name], x) for name, x in before.items())


def step(network: Network) -> None:
    """One down the gradient."""
    graph = Model(load_checkpoint("0.3.0")).graph("Si left-handed")
    found = network_gradients(network, graph)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in found:
                parameter -= 1e-6 * found[name]
