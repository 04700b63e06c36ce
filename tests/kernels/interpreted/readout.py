"""The readout by its kernels, run by Triton's interpreter, against plain torch and its autograd."""

import pytest
import torch

from ase_fastchgnet.model.checkpoint import load_checkpoint
from ase_fastchgnet.model.engine.weights import pack
from fastchgnet_kernels import readout
from fastchgnet_kernels._launch import INTERPRETED
from fastchgnet_kernels.readout import ReadoutWeights
from tests.closeness import assert_equal_to_rounding, assert_no_worse_than_plain
from tests.conftest import PoisonedMemory
from tests.kernels.gated import SIZES, cast
from tests.kernels.test_readout import features, make_weights, plain, run

WIDTH = 16  # the least that a matrix product of Triton takes
architectures = pytest.mark.parametrize(("layers", "norm"), [(3, True), (1, False)])


@architectures
@pytest.mark.parametrize("n", SIZES)
def test_float64_is_the_formula_and_its_derivative(
    n: int, layers: int, norm: bool, poisoned_memory: PoisonedMemory
) -> None:
    assert INTERPRETED
    atoms, w = features(n, WIDTH), make_weights(layers, norm, WIDTH)
    for ours, exact in zip(poisoned_memory.run(lambda: run(atoms, w)), plain(atoms, w), strict=True):
        assert_equal_to_rounding(ours, exact)


@architectures
@pytest.mark.parametrize("n", SIZES)
def test_float32_is_no_worse_than_plain(n: int, layers: int, norm: bool, poisoned_memory: PoisonedMemory) -> None:
    atoms, w = features(n, WIDTH, torch.float32), make_weights(layers, norm, WIDTH, torch.float32)
    exact = plain(atoms.double(), ReadoutWeights(*cast(w, torch.float64)))
    for ours, theirs, truth in zip(poisoned_memory.run(lambda: run(atoms, w)), plain(atoms, w), exact, strict=True):
        assert_no_worse_than_plain(ours, theirs, truth)


# Pre-activations reach hundreds, as in whole_model.py.
@pytest.mark.filterwarnings("ignore:overflow encountered in exp2:RuntimeWarning")
@pytest.mark.parametrize("name", ["0.3.0", "0.2.0", "r2scan"])
def test_so_it_is_with_released_weights(name: str) -> None:
    w = pack(load_checkpoint(name), torch.float32, "cpu").readout
    atoms = features(63, 64, torch.float32)
    exact = plain(atoms.double(), ReadoutWeights(*cast(w, torch.float64)))
    for ours, theirs, truth in zip(run(atoms, w), plain(atoms, w), exact, strict=True):
        assert_no_worse_than_plain(ours, theirs, truth)


def test_kernels_leave_nothing_behind_and_the_definition_does_where_it_is_differentiated() -> None:
    atoms, w = features(5, WIDTH), make_weights(3, True, WIDTH)
    assert readout.forward(atoms, w)[2] is None
    readout.backward(atoms.requires_grad_(), w, None).square().sum().backward()
    assert atoms.grad is not None
    assert atoms.grad.abs().max() > 0
