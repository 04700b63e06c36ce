"""A run that is killed goes on as if it had not been: real processes, SIGKILL, and files compared byte by byte."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors
from command import COMMAND, environment

from tests.training.material import write_labelled

SETTINGS = ["--epochs=2", "--batch-size=1", "--save-every=0", "--learning-rate=0.002", "--test=test.extxyz"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a run that nothing has interrupted."""
    where = tmp_path_factory.mktemp("resume")
    write_labelled(where / "data.extxyz", 13)
    write_labelled(where / "test.extxyz", 2, seed=1)
    subprocess.run(command("whole"), cwd=where, env=environment(), check=True, capture_output=True, timeout=200)
    return where


def command(out: str, *more: str) -> list[str]:
    return [*COMMAND, "finetune", "data.extxyz", "--out", out, *SETTINGS, *more]


def place(path: Path) -> tuple[int, int]:
    """Epoch, and batches done in it, of a saved state."""
    if not path.exists():
        return 0, 0
    with safetensors.safe_open(path, framework="np") as file:
        sampler = json.loads(file.metadata()["position"])["sampler"]
    return sampler["epoch"], sampler["done"]


def kill_when(arguments: list[str], where: Path, reached: Callable[[], bool], *, child: int | None = None) -> None:
    """Starts a process and kills it, or that child of it, as soon as `reached`; and waits for its end.

    Whatever writes is halted for every look, so that no moment is missed.
    """
    with open(where / "said.txt", "w") as said:
        process = subprocess.Popen(arguments, cwd=where, env=environment(), stderr=said, stdout=said)
    try:
        for _ in range(20_000):
            time.sleep(0.01)
            writers = [process.pid] if child is None else children(process.pid)
            send(signal.SIGSTOP, writers)
            if reached():
                send(signal.SIGKILL, [writers[child or 0]])
                send(signal.SIGCONT, writers)
                break
            send(signal.SIGCONT, writers)
            assert process.poll() is None, (where / "said.txt").read_text()
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.wait()


def children(parent: int) -> list[int]:
    """Processes that another has started."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def send(what: signal.Signals, to: list[int]) -> None:
    for pid in to:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


def test_a_run_killed_in_the_middle_of_an_epoch_ends_with_the_same_bytes(folder: Path) -> None:
    state = folder / "killed" / "state.safetensors"
    kill_when(command("killed"), folder, lambda: place(state) == (1, 8))
    done = subprocess.run(
        command("killed", "--resume"), cwd=folder, env=environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "from step 20 of 24" in done.stderr
    for name in ("model.safetensors", "errors.json", "config.json", "run.json"):
        assert (folder / "killed" / name).read_bytes() == (folder / "whole" / name).read_bytes(), name
    for name in ("steps.csv", "epochs.csv"):
        assert without_times(folder / "killed" / name) == without_times(folder / "whole" / name)


def without_times(path: Path) -> list[str]:
    """Rows of a log; the last column is about time."""
    return [line.rpartition(",")[0] for line in path.read_text().splitlines()]
