"""The CPU path's model: its calls are those that torch makes, its misses those of a cache that is simulated."""

import itertools
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastchgnet_kernels import gated_message, gated_update
from fastchgnet_kernels.io_model.blocks import Trace, traces
from fastchgnet_kernels.io_model.gated import GatedShape
from tests.kernels.gated import Architecture, Case, make_case

ATOM_CONV = GatedShape(0, 1, 0, 3, 0, 1, 2)
BOND_CONV = GatedShape(0, 1, 0, 2, 64, 1, 2)
ANGLE_UPDATE = GatedShape(0, 0, 0, 2, 64, 0, 1)
KINDS = {
    "gather": {"_embedding_bag_forward_only", "index_select"},
    "product": {"addmm", "addmm_", "mm"},
    "norm": {"native_layer_norm", "native_layer_norm_backward"},
    "exp": {"sigmoid", "sigmoid_"},
    "pass": {"clamp", "mul", "mul_", "add_", "sub", "addcmul", "copy_"},
}


class Calls(TorchDispatchMode):
    """The kinds of the operations that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.kinds += [kind for kind, names in KINDS.items() if name in names]
        return func(*args, **(kwargs or {}))


def shape_of(case: Case, *, summed: bool) -> GatedShape:
    dense = 0 if case.rows.dense is None else case.rows.dense.x.shape[1]
    layers = 1 if case.weights.second is None else 2
    return GatedShape(0, int(summed), 0, 2, dense, int(summed), layers, case.width, 4)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("summed", [True, False])
def test_the_listed_calls_are_those_that_torch_makes(
    summed: bool, layers: int, dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order, for one block; the gathers transposed come after all blocks."""
    monkeypatch.setattr(gated_message.rows, "BLOCK_ROWS", 10**6)
    case = make_case(63, Architecture(layers, dense=dense), dtype=torch.float32)
    grad_x = None if case.rows.dense is None else torch.zeros_like(case.rows.dense.x)
    grad_out, out = torch.randn(case.segments.ptr.shape[0] - 1, case.width), torch.zeros(63, case.width)
    with Calls() as first:
        if summed:
            gated_message.forward(*case, keep=None)
        else:
            gated_update.forward(case.rows, case.weights, out=out, keep=None)
    with Calls() as second:
        if summed:
            gated_message.backward(grad_out, *case, grad_x=grad_x, kept=None)
        else:
            gated_update.backward(out, case.rows, case.weights, grad_x=grad_x, kept=None)
    forward, backward = ([call.kind for call in trace.calls] for trace in traces(shape_of(case, summed=summed)))
    assert first.kinds == forward
    assert second.kinds == backward + (2 if summed else 1) * ["gather"]


def simulated(trace: Trace, rows: int, fitting: int) -> float:
    """Columns a row that cross the border of a cache of `rows * fitting` words, by running nine blocks through it.

    The unit is a row of an array; it is touched when a call comes to it. The last block is counted: by then as much
    leaves as comes.
    """
    cache: OrderedDict[tuple[str, int, int], bool] = OrderedDict()  # whether it was changed; the oldest comes first
    held = moved = 0
    for block in range(9):
        moved = 0
        for call, row in itertools.product(trace.calls, range(rows)):
            for name in sorted({*call.reads, *call.writes}):
                unit = (name, row, block if "*" in name else 0)
                changed = name in call.writes
                if unit in cache:
                    changed |= cache.pop(unit)
                else:
                    held, moved = held + trace.columns[name], moved + trace.columns[name]
                cache[unit] = changed
                while held > rows * fitting:
                    (oldest, _, _), dirty = cache.popitem(last=False)
                    held -= trace.columns[oldest]
                    moved += dirty * trace.columns[oldest]
    return moved / rows


@pytest.mark.parametrize("shape", [ATOM_CONV, BOND_CONV, ANGLE_UPDATE], ids=["AtomConv", "BondConv", "AngleUpdate"])
def test_what_leaves_the_cache_is_what_leaves_a_simulated_one(shape: GatedShape) -> None:
    """The model knows distances on average over a row's place in a call; 20 rows resolve them to 1/20 of an array."""
    for trace in traces(shape):
        sizes = np.array([150.0, 300.0, 450.0, 700.0, 1000.0, 1500.0, 2500.0])
        for size, found in zip(sizes, trace.moved(sizes).sum(0), strict=True):
            assert found == pytest.approx(simulated(trace, 20, int(size)), rel=0.1), size


@pytest.mark.parametrize("shape", [ATOM_CONV, BOND_CONV, ANGLE_UPDATE])
def test_a_cache_that_holds_a_block_is_missed_only_by_new_memory(shape: GatedShape) -> None:
    for trace in traces(shape):
        new = {name for name in trace.columns if "*" in name}
        written = {name for call in trace.calls for name in call.writes}
        expected = sum(trace.columns[name] * (2 if name in written else 1) for name in new)
        assert trace.moved(np.array([1e9, np.inf])).sum(0).tolist() == [expected, expected]


@pytest.mark.parametrize("shape", [ATOM_CONV, BOND_CONV, ANGLE_UPDATE])
def test_a_larger_cache_is_never_missed_more_often(shape: GatedShape) -> None:
    for trace in traces(shape):
        moved = trace.moved(np.linspace(50, 4000, 100)).sum(0)
        assert (np.diff(moved) <= 1e-9).all()
