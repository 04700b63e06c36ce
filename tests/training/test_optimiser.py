"""What is trained, how fast, and what is kept of it."""

import math

import pytest
import torch
from torch import Tensor

from ase_fastchgnet.model.checkpoint import load_checkpoint
from ase_fastchgnet.model.network import Network
from ase_fastchgnet.training.config import TrainConfig
from ase_fastchgnet.training.optimiser import (
    MovingAverage,
    freeze_layers,
    learning_rate,
    make_optimiser,
    trained,
)


def test_the_rate_rises_in_a_line_and_falls_as_half_a_cosine_to_a_hundredth() -> None:
    config = TrainConfig(learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(step, 101, config) for step in range(101)]
    assert rates[:10] == pytest.approx([step / 11 for step in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx((1 + 0.01) / 2)
    assert rates[100] == pytest.approx(0.01)
    assert all(math.isfinite(learning_rate(0, n, config.but(warmup=w))) for n in (1, 2) for w in (0.0, 0.9))


def test_the_average_is_what_its_formula_says_and_weights_come_back_from_it() -> None:
    weight = torch.tensor([1.0, 2.0])
    average = MovingAverage([weight], 0.9)
    expected: Tensor = weight.clone()
    for step in range(1, 200):
        weight += 0.01 * step
        decay = min(0.9, step / (step + 9))  # short at first, so that the start does not weigh long
        expected = decay * expected + (1 - decay) * weight
        average.update(step)
    torch.testing.assert_close(average.values[0], expected)
    before = weight.clone()
    with average.in_place():
        torch.testing.assert_close(weight, expected)
    assert torch.equal(weight, before)


def test_an_average_without_memory_is_the_weights() -> None:
    weight = torch.tensor([1.0])
    average = MovingAverage([weight], 0.0)
    weight += 3
    average.update(1)
    assert torch.equal(average.values[0], weight)


def test_layers_are_frozen_by_the_start_of_their_names() -> None:
    network = Network(load_checkpoint("0.3.0"))
    free = trained(network)
    assert "composition_model.fc.weight" not in free
    freeze_layers(network, ["atom_conv_layers.1", "mlp.layers.0.bias"])
    frozen = free.keys() - trained(network).keys()
    assert "mlp.layers.0.bias" in frozen
    assert "mlp.layers.0.weight" not in frozen
    assert all(name.startswith("atom_conv_layers.1.") for name in frozen - {"mlp.layers.0.bias"})
    assert len(frozen) > 5


def test_an_unknown_layer_and_nothing_left_are_refused() -> None:
    network = Network(load_checkpoint("0.3.0"))
    with pytest.raises(
        ValueError, match=r"freeze='atom_conv': there is no such layer; there are .*atom_conv_layers\.0"
    ):
        freeze_layers(network, ["atom_conv"])
    freeze_layers(network, {name.partition(".")[0]: None for name, _ in network.named_parameters()})
    with pytest.raises(ValueError, match="every layer is frozen"):
        trained(network)


def test_matrices_decay_and_vectors_do_not() -> None:
    layer = torch.nn.Linear(3, 2)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    config = TrainConfig(learning_rate=0.1, weight_decay=0.5)
    optimiser = make_optimiser(dict(layer.named_parameters()), config)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    torch.testing.assert_close(layer.weight, before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(layer.bias, before["bias"])


def test_without_decay_a_step_is_that_of_adam() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimisers = (
        make_optimiser(dict(ours.named_parameters()), TrainConfig(learning_rate=0.1)),
        torch.optim.Adam(theirs.parameters(), lr=0.1),
    )
    for _ in range(5):
        x = torch.randn(4, 3)
        for layer, optimiser in zip((ours, theirs), optimisers, strict=True):
            optimiser.zero_grad()
            layer(x).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
