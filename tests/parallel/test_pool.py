"""A pool whose workers may die: each death costs the call it happened in, and nothing else."""

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from ase_fastchgnet.parallel.pool import WorkerDied, WorkerPool

TESTS = str(Path(__file__).parent)
sys.path.insert(0, TESTS)  # workers have this process's path

import tasks  # noqa: E402


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool([{"WORKER": "a"}, {"WORKER": "b"}])
    yield pool
    pool.shutdown(cancel_futures=True)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_calls_are_answered_by_other_processes(pool: WorkerPool) -> None:
    pids = {pool.submit(tasks.slow, [0.3]).result() for _ in range(1)} | {
        future.result() for future in [pool.submit(tasks.slow, [0.5]) for _ in range(4)]
    }
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_each_worker_has_its_own_environment(pool: WorkerPool) -> None:
    busy = [pool.submit(tasks.slow, [0.5]) for _ in range(2)]
    found = [pool.submit(tasks.environment, ["WORKER"]) for _ in range(8)]
    assert {future.result()[0] for future in found} <= {"a", "b"}
    assert len({future.result() for future in busy}) == 2


def test_what_a_call_raises_is_raised_to_the_caller(pool: WorkerPool) -> None:
    with pytest.raises(ValueError, match=r"cannot do \[1\]"):
        pool.submit(tasks.failing, [1]).result()
    assert pool.submit(tasks.doubled, [1]).result() == [2]


def test_an_answer_that_cannot_be_sent_is_an_error_of_its_call(pool: WorkerPool) -> None:
    with pytest.raises(Exception, match="pickle"):
        pool.submit(tasks.unpicklable, [1]).result()
    assert pool.submit(tasks.doubled, [1]).result() == [2]


def test_a_death_fails_its_call_only_and_the_worker_is_replaced(pool: WorkerPool) -> None:
    futures = [pool.submit(tasks.doubled_but_13_kills, [n]) for n in (1, 13, 2, 13, 3)]
    assert [future.result() for n, future in enumerate(futures) if n % 2 == 0] == [[2], [4], [6]]
    for future in futures[1], futures[3]:
        with pytest.raises(WorkerDied, match="ended with code -9"):
            future.result()


def test_shutting_down_waits_for_what_was_asked() -> None:
    pool = WorkerPool([{}])
    futures = [pool.submit(tasks.doubled, [n]) for n in range(3)]
    pool.shutdown()
    assert [future.result() for future in futures] == [[0], [2], [4]]
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(tasks.doubled, [1])


def test_cancelling_kills_what_is_under_way_at_once(tmp_path: Path) -> None:
    pool = WorkerPool([{}])
    running = pool.submit(tasks.write_pid_and_sleep, str(tmp_path / "pid"))
    waiting = pool.submit(tasks.doubled, [1])
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    start = time.monotonic()
    pool.shutdown(cancel_futures=True)
    assert time.monotonic() - start < 5
    assert not is_running(int((tmp_path / "pid").read_text()))
    assert isinstance(running.exception(), WorkerDied)
    with pytest.raises(CancelledError):
        waiting.result()


def test_workers_end_when_the_process_that_made_them_is_killed(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {TESTS!r})\n"
        "import tasks\n"
        "from ase_fastchgnet.parallel.pool import WorkerPool\n"
        "pool = WorkerPool([{}])\n"
        "print(pool.submit(tasks.slow, [0.0]).result(), flush=True)\n"
        "pool.submit(tasks.slow, [60.0]).result()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert is_running(worker)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not is_running(worker))


def test_a_pool_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="one worker at least"):
        WorkerPool([])


def test_an_answer_that_cannot_be_unpickled_is_an_error_and_no_hang(pool: WorkerPool) -> None:
    with pytest.raises(TypeError, match="cannot be unpickled"):
        pool.submit(tasks.raise_unpicklable, [1]).result(timeout=30)
    assert pool.submit(tasks.doubled, [1]).result(timeout=30) == [2]


def test_a_call_that_a_worker_cannot_import_is_an_error_of_that_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a function of the caller's main module."""
    (tmp_path / "only_here.py").write_text("def work(items):\n    return items\n")
    with WorkerPool([{}]) as pool:
        assert pool.submit(tasks.doubled, [1]).result(timeout=30) == [2]  # the worker has the path of before
        monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(ModuleNotFoundError, match="only_here"):
            pool.submit(importlib.import_module("only_here").work, [1]).result(timeout=30)
        assert pool.submit(tasks.doubled, [2]).result(timeout=30) == [4]


def test_modules_in_the_current_folder_are_not_imported_by_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise RuntimeError('a script of the user')")
    monkeypatch.chdir(tmp_path)
    with WorkerPool([{}]) as pool:
        assert pool.submit(tasks.doubled, [3]).result(timeout=30) == [6]
