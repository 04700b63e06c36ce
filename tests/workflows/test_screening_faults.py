"""Processes that are killed, by whom and when it may be: nothing is lost, nothing is done twice."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk

from ase_fastchgnet import evaluate, screen

ROOT = Path(__file__).parents[2]
TESTS = Path(__file__).parent
COUNT = 120
SCRIPT = f"""
import sys
sys.path[:0] = {[str(ROOT), str(ROOT / "kernels"), str(TESTS)]!r}
from ase_fastchgnet import screen
from test_screening_faults import salts
done = screen(salts({COUNT}), sys.argv[1], devices=2, resume=True)
print(done.n_done, done.n_skipped, len(done.failures))
"""


def salts(count: int) -> list[tuple[str, Atoms]]:
    """Crystals of one chunk's size each or so: 32 atoms, no two alike."""
    return [
        (f"salt {n}", bulk("NaCl", "rocksalt", a=5.4 + 0.002 * n, cubic=True).repeat((2, 2, 1))) for n in range(count)
    ]


def children_of(pid: int) -> list[int]:
    """Workers of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] or [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def lines_of(out: Path) -> int:
    return out.read_bytes().count(b"\n") if out.exists() else 0


def start(out: Path) -> "subprocess.Popen[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(out)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> list[int]:
    printed, complaints = process.communicate(timeout=120)
    assert process.returncode == 0, complaints
    return [int(word) for word in printed.split()]


def assert_complete(out: Path) -> None:
    """Each structure once, with the energy of its own."""
    records = [json.loads(line) for line in out.read_text().splitlines()]
    source = salts(COUNT)
    assert Counter(record["id"] for record in records) == Counter(name for name, _ in source)
    wanted = evaluate([atoms for _, atoms in source[::20]])
    by_index = {record["index"]: record for record in records}
    for index, prediction in zip(range(0, COUNT, 20), wanted, strict=True):
        assert by_index[index]["energy_eV"] == pytest.approx(prediction.energy, abs=32 * 4e-6)


def test_a_worker_killed_on_the_way_costs_nothing(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    process = start(out)
    for already in (1, 30):
        wait_until(lambda: lines_of(out) >= already)  # noqa: B023
        os.kill(children_of(process.pid)[0], signal.SIGKILL)
    assert finish(process) == [COUNT, 0, 0]
    assert_complete(out)


def test_a_run_killed_at_any_moment_goes_on_where_it_was(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    for already in (1, 40):
        process = start(out)
        wait_until(lambda: lines_of(out) >= already)  # noqa: B023
        workers = children_of(process.pid)
        process.kill()
        process.communicate()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))  # noqa: B023
    on_disk = lines_of(out)
    assert 40 <= on_disk < COUNT
    assert finish(start(out)) == [COUNT, on_disk, 0]
    assert_complete(out)


def test_ctrl_c_leaves_what_is_finished_on_disk_and_no_process(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    process = start(out)
    wait_until(lambda: lines_of(out) >= 10)
    workers = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode != 0, "it was done before"
    assert "KeyboardInterrupt" in complaints
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    text = out.read_text()
    assert text.endswith("\n")
    on_disk = len([json.loads(line) for line in text.splitlines()])
    assert finish(start(out)) == [COUNT, on_disk, 0]
    assert_complete(out)


def test_a_structure_that_kills_its_worker_is_set_aside_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(TESTS))  # workers have this process's path
    poison = importlib.import_module("poison")
    monkeypatch.setattr("ase_fastchgnet.workflows.streaming.evaluate_chunk", poison.evaluate_chunk_but_one_kills)
    source = [(f"salt {n}", bulk("NaCl", "rocksalt", a=5.5 + 0.01 * n)) for n in range(24)]
    done = screen(source, tmp_path / "results.jsonl", devices=2)
    assert done.n_done == 23
    ((name, why),) = done.failures
    assert name == f"salt {poison.DEADLY}"
    assert "2 worker processes died on it" in why


@pytest.fixture
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="Dask is an extra")
    with (
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs="CRITICAL"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.filterwarnings("default")  # Dask's own, of its closing
def test_a_dask_cluster_that_loses_a_worker_loses_no_structure(tmp_path: Path, cluster: Any) -> None:
    out = tmp_path / "results.jsonl"
    pids = list(cluster.run(os.getpid).values())

    def kill_one() -> None:
        wait_until(lambda: lines_of(out) >= 5)
        os.kill(pids[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    done = screen(salts(COUNT), out, executor=cluster.get_executor())
    killer.join()
    assert (done.n_done, done.failures) == (COUNT, [])
    assert len(done.busy) >= 2
    assert_complete(out)
