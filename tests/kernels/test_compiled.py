"""What the kernels need on GPUs, read from their machine code. No GPU is needed for that."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("triton", reason="Triton is for Linux only")

from fastchgnet_kernels._launch import DEFAULT_TILE
from fastchgnet_kernels.gated_message import kernel as gated_message
from fastchgnet_kernels.gated_update import kernel as gated_update
from fastchgnet_kernels.segment_sum import kernel as segment_sum
from tests.kernels.compiling import compiled

ROWS, SEGMENTS, WARPS, _ = DEFAULT_TILE
MLP = {"D": 64, "F_PADDED": 16, "NORM": True, "PARTS": 2, "NATIVE": True, "ROWS": ROWS}
EDGES = {**MLP, "K": 3, "F": 0, "LAYERS": 2}
ANGLES = {**MLP, "K": 2, "F": 64, "F_PADDED": 64, "LAYERS": 2}
UPDATES = {**MLP, "K": 2, "F": 64, "F_PADDED": 64, "LAYERS": 1}


class Budget(NamedTuple):
    """The most a kernel may need, as measured and a little more."""

    kernel: Any
    constants: dict[str, Any]
    stack: int  # bytes spilled
    shared: int  # KiB
    instructions: float | None  # of a warp, a row; None where rows are not what it works through
    warps: int = WARPS


BUDGETS = {
    "edges forward": Budget(gated_message.message_forward_kernel, {**EDGES, "SEGMENTS": SEGMENTS}, 0, 80, 190),
    "edges backward": Budget(gated_message.message_backward_kernel, EDGES, 640, 80, 400),
    "angles forward": Budget(gated_message.message_forward_kernel, {**ANGLES, "SEGMENTS": SEGMENTS}, 16, 227, 230),
    "angles backward": Budget(gated_message.message_backward_kernel, ANGLES, 1024, 227, 500),
    "updates forward": Budget(gated_update.update_forward_kernel, UPDATES, 0, 227, 150),
    "updates backward": Budget(gated_update.update_backward_kernel, UPDATES, 1024, 227, 350),
    "segment sum": Budget(segment_sum.segment_sum_kernel, {"D": 128, "D_PADDED": 128, "SEGMENTS": 8}, 0, 8, None, 4),
}


QUICK = {"edges forward", "segment sum"}  # the others take 5 to 10 s each to compile


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in BUDGETS]
)
def test_hopper_code_keeps_to_its_budget(name: str, tmp_path: Path) -> None:
    budget = BUDGETS[name]
    found = compiled(budget.kernel, budget.constants, sm=90, warps=budget.warps, folder=tmp_path)
    assert found.stack <= budget.stack
    assert found.shared <= 1024 * budget.shared
    if budget.instructions is not None:
        assert found.per_row(ROWS, budget.warps) <= budget.instructions
        assert found.matrix_products > 0


@pytest.mark.slow  # what they may need is held to on sm_90 alone
@pytest.mark.parametrize("sm", [80, 100])
@pytest.mark.parametrize("name", BUDGETS)
def test_other_generations_compile(name: str, sm: int, tmp_path: Path) -> None:
    budget = BUDGETS[name]
    found = compiled(budget.kernel, budget.constants, sm=sm, warps=budget.warps, folder=tmp_path)
    assert found.shared <= 1024 * (163 if sm == 80 else 227)
    if budget.instructions is not None:
        assert found.matrix_products > 0
