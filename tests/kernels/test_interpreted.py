"""The kernels on CPU tensors: each file of `interpreted/` in a process of its own, in which Triton interprets.

To see more of one: TRITON_INTERPRET=1 python -m pytest tests/kernels/interpreted/segment_sum.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is for Linux only")

HERE = Path(__file__).parent
FILES = sorted(path.stem for path in (HERE / "interpreted").glob("*.py"))


def test_every_op_with_a_kernel_is_interpreted() -> None:
    ops = {path.parent.name for path in HERE.parents[1].glob("kernels/fastchgnet_kernels/*/kernel.py")}
    assert len(ops) >= 3
    assert ops <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_kernel_agrees_with_the_formulas(name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", str(HERE / "interpreted" / f"{name}.py")]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, cwd=HERE.parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
