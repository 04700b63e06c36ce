"""Gradients of the weights where ops are kernels, in Triton's interpreter: those of the ops in plain torch."""

from typing import Literal

import pytest
import torch
from torch import Tensor

from ase_fastchgnet.model.checkpoint import load_checkpoint
from ase_fastchgnet.model.network import Network
from fastchgnet_kernels import _launch
from tests.closeness import assert_equal_to_rounding
from tests.model.backends import Model
from tests.model.double_backward import gradients, weighted_sum

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp2:RuntimeWarning")  # as in whole_model.py


def weight_gradients(name: str, forces: Literal["conservative", "direct"]) -> dict[str, Tensor]:
    checkpoint = load_checkpoint(name)
    graph = Model(checkpoint).graph("Fe bcc, one atom", "dimer in vacuum")
    network = Network(checkpoint, dtype=torch.float64)
    return gradients(weighted_sum(network(graph, forces=forces)), dict(network.named_parameters()))


@pytest.mark.parametrize(("name", "forces"), [("0.3.0", "conservative"), ("0.3.0-direct", "direct")])
def test_weights_get_the_gradients_that_they_get_without_kernels(
    name: str, forces: Literal["conservative", "direct"], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _launch.INTERPRETED
    found = weight_gradients(name, forces)
    monkeypatch.setattr(_launch, "INTERPRETED", False)
    exact = weight_gradients(name, forces)
    for weight, gradient in exact.items():
        # Ten times as many roundings as for one pass: these gradients go through every layer four times.
        assert_equal_to_rounding(found[weight], gradient, roundings=40_000, scale=1.0, what=weight)
