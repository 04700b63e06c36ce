"""The fastchgnet command as a process of its own, as a user's shell starts it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "ase_fastchgnet"]


def environment() -> dict[str, str]:
    """For a process that finds the package, on one thread, with a screen 80 columns wide."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "80", "FASTCHGNET_DEVICE": "cpu"}


@dataclass(frozen=True)
class Run:
    """What a process has left."""

    code: int
    stdout: str
    stderr: str


def fastchgnet(*arguments: str, cwd: Path) -> Run:
    """Runs the command in the folder `cwd`, without a terminal."""
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300
    )
    return Run(done.returncode, done.stdout, done.stderr)
