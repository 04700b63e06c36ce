"""fastchgnet_kernels stands on its own: torch and numpy are all it needs."""

import subprocess
import sys
from pathlib import Path

KERNELS = Path(__file__).parents[2] / "kernels"


def run(code: str) -> str:
    """What `code` prints in a fresh interpreter that can see the kernels and what is installed."""
    code = f"import sys; sys.path.insert(0, {str(KERNELS)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_it_loads_nothing_but_torch_numpy_and_the_standard_library() -> None:
    loaded = run(
        "import torch; before = set(sys.modules); import fastchgnet_kernels\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - sys.stdlib_module_names - {'numpy'}))"
    )
    assert loaded.split() == ["fastchgnet_kernels"]


def test_importing_it_changes_no_global_state_of_torch() -> None:
    state = (
        "(torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), torch.initial_seed(), "
        "torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision())"
    )
    printed = run(
        f"import torch; torch.manual_seed(7); before = {state}; import fastchgnet_kernels; print(before == {state})"
    )
    assert printed.split() == ["True"]


def test_it_runs_where_neither_ase_nor_the_calculator_can_be_imported() -> None:
    printed = run(
        "for name in ('ase', 'ase_fastchgnet', 'chgnet', 'vesin', 'scipy', 'pymatgen', 'safetensors'):\n"
        "    sys.modules[name] = None  # importing it raises ImportError\n"
        "import torch\n"
        "from fastchgnet_kernels import angle_basis, bond_basis, gated_message, gated_update, segment_sum\n"
        "zero_one = torch.tensor([0, 1], dtype=torch.int32)\n"
        "x = torch.ones(1, 2)\n"
        "incidence = gated_message.Incidence(zero_one[:1], zero_one, zero_one[:1], zero_one)\n"
        "rows, weights = gated_message.Rows(x, incidence, None), gated_message.GatedWeights(None, None, None, None)\n"
        "weighting = gated_message.Weighting(torch.ones(1, 1), incidence)\n"
        "segments = gated_message.Segments(zero_one, zero_one[:1])\n"
        "print(float(gated_message.forward(rows, weights, weighting, segments, keep=None)[0]))"
    )
    assert abs(float(printed) - 0.534447) < 1e-6  # 1 · σ(1)²
