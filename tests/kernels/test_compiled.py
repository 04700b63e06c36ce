"""What the kernels need on GPUs, read from their machine code. No GPU is needed for that."""

from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is for Linux only")

from fastchgnet_kernels._launch import default_tile
from tests.kernels.budgets import BUDGETS, GATED, PRODUCTS
from tests.kernels.compiling import compiled, kernels_of

QUICK = {"edges forward", "segment sum", "bond basis backward", "angle basis", "forces of atoms"}  # and others not
SHARED = {80: 163, 100: 227}  # KiB that a program can have
SPILLED = {80: 128, 100: 128}  # bytes

quick_or_slow = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in BUDGETS]
)


def test_every_kernel_has_a_budget() -> None:
    assert kernels_of("fastchgnet_kernels") == {budget.kernel.fn.__name__ for budget in BUDGETS.values()}


@quick_or_slow
def test_hopper_code_keeps_to_its_budget(name: str, tmp_path: Path) -> None:
    budget = BUDGETS[name]
    found = compiled(budget.kernel, budget.constants, data=budget.data, sm=90, warps=budget.warps, folder=tmp_path)
    assert found.stack <= budget.stack
    assert found.shared <= 1024 * budget.shared
    if budget.instructions is not None:
        assert found.per_row(budget.constants["ROWS"], budget.warps) <= budget.instructions
    assert (found.matrix_products > 0) is (name in PRODUCTS)


@pytest.mark.slow
@pytest.mark.parametrize("sm", SHARED)
@pytest.mark.parametrize("name", BUDGETS)
def test_other_generations_compile_with_their_tile_and_spill_little(name: str, sm: int, tmp_path: Path) -> None:
    budget = BUDGETS[name]
    constants, warps = budget.constants, budget.warps
    if name in GATED:
        rows, _, warps, _ = default_tile((sm // 10, 0), 4 if budget.data == "fp32" else 8)
        constants = {**constants, "ROWS": rows}
    found = compiled(budget.kernel, constants, data=budget.data, sm=sm, warps=warps, folder=tmp_path)
    assert found.shared <= 1024 * SHARED[sm]
    if budget.data == "fp32":
        assert found.stack <= SPILLED[sm]
        assert (found.matrix_products > 0) is (name in PRODUCTS)
