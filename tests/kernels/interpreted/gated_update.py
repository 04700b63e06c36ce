"""The gated update's kernel, run by Triton's interpreter, against the dense formula."""

import pytest
import torch
from torch import Tensor

from fastchgnet_kernels import gated_update
from tests.closeness import assert_no_worse_than_plain
from tests.conftest import PoisonedMemory
from tests.kernels.gated import SIZES, Architecture, Case, cast, make_case, plain_update

WIDTH = 16  # the least that a matrix product of Triton takes
ANGLE_UPDATE = Architecture(layers=1)


def run(case: Case) -> list[Tensor]:
    """Output, gradients of the table and of x."""
    random = torch.Generator().manual_seed(case.n_messages)
    old, grad_out = (torch.randn(case.n_messages, WIDTH, generator=random).to(case.rows.table) for _ in range(2))
    out = old.clone()
    assert gated_update.forward(case.rows, case.weights, out=out, keep=None) is None
    assert case.rows.dense is not None
    grad_x = torch.zeros_like(case.rows.dense.x)
    grad_table = gated_update.backward(grad_out, case.rows, case.weights, grad_x=grad_x, kept=None)
    return [out - old, grad_table, grad_x]


def run_plain(case: Case) -> list[Tensor]:
    """The dense formula and what autograd makes of it."""
    random = torch.Generator().manual_seed(case.n_messages)
    _, grad_out = (torch.randn(case.n_messages, WIDTH, generator=random).to(case.rows.table) for _ in range(2))
    leaves = [leaf.detach().clone().requires_grad_() for leaf in case.inputs[:2] if leaf is not None]
    p = plain_update(case.with_inputs(*leaves, case.inputs[2]).rows, case.weights)
    return [p.detach(), *torch.autograd.grad(p, leaves, grad_out, materialize_grads=True, allow_unused=True)]


@pytest.mark.parametrize("n", SIZES)
def test_output_and_gradients_are_no_worse_than_plain(n: int, poisoned_memory: PoisonedMemory) -> None:
    case = make_case(n, ANGLE_UPDATE, width=WIDTH)
    single = cast(case, torch.float32)
    fused = poisoned_memory.run(lambda: run(single))
    for ours, plain, exact in zip(fused, run_plain(single), run_plain(case), strict=True):
        # The output is added to numbers of size 1 and taken off again: roundings of their size.
        assert_no_worse_than_plain(ours, plain, exact, scale=4.0)
