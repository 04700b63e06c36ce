"""WorkerPool: an executor whose processes may die."""

import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from multiprocessing import Pipe
from typing import Any, NamedTuple

STOP_SECONDS = 5.0  # for a worker to leave by itself


class WorkerDied(RuntimeError):
    """The process that worked on a chunk ended without an answer."""


class _Job(NamedTuple):
    future: "Future[Any]"
    call: bytes  # pickled (function, arguments)


class WorkerPool(Executor):
    """Worker processes, one for each set of environment variables, that share one queue.

    A `concurrent.futures.Executor` with one difference to ProcessPoolExecutor: the death of a worker fails the call it
    was working on, with WorkerDied, and no other; a new worker takes its place.  Workers are fresh interpreters that
    import nothing of the caller's main module, so scripts need no `if __name__ == "__main__"`.  When the process that
    made the pool dies, its workers end too.  NotImplementedError on Windows, which cannot hand them a socket.
    """

    def __init__(self, environments: Sequence[Mapping[str, str]]) -> None:
        if os.name != "posix":
            raise NotImplementedError("worker processes need Linux or macOS; here, evaluate in this process")
        if not environments:
            raise ValueError("a pool needs one worker at least")
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._stopping = self._killing = False
        self._workers: set[_Worker] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._look_after, args=(e,), daemon=True) for e in environments]
        for thread in self._threads:
            thread.start()

    @property
    def n_workers(self) -> int:
        return len(self._threads)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call `fn` in a worker; it and its arguments are pickled now."""
        if self._stopping:
            raise RuntimeError("the pool has been shut down")
        future: Future[Any] = Future()
        self._jobs.put(_Job(future, pickle.dumps((fn, args, kwargs), pickle.HIGHEST_PROTOCOL)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more calls.  With `cancel_futures`, those not begun are cancelled and those under way are killed."""
        self._stopping = True
        if cancel_futures:
            self._killing = True
            while (job := _next(self._jobs)) is not None:
                job.future.cancel()
            with self._lock:
                for worker in self._workers:
                    worker.kill()
        for _ in self._threads:
            self._jobs.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _look_after(self, environment: Mapping[str, str]) -> None:
        """One thread for each worker: hands it one call after the other, and replaces it when it dies."""
        worker: _Worker | None = None
        while (job := self._jobs.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                if worker is None:
                    worker = self._start(environment)
                answer = worker.call(job.call)
            except (EOFError, OSError) as error:
                code = None if worker is None else self._end(worker)
                worker = None
                job.future.set_exception(WorkerDied(f"worker process ended with code {code} ({type(error).__name__})"))
                continue
            try:
                succeeded, value = pickle.loads(answer)
            except Exception as error:  # a class may refuse in any way
                job.future.set_exception(TypeError(f"the answer of a worker cannot be unpickled: {error!r}"))
                continue
            if succeeded:
                job.future.set_result(value)
            else:
                job.future.set_exception(value)
        if worker is not None:
            self._end(worker)

    def _start(self, environment: Mapping[str, str]) -> "_Worker":
        worker = _Worker(environment)
        with self._lock:
            self._workers.add(worker)
        if self._killing:  # it may have started too late to be killed
            worker.kill()
        return worker

    def _end(self, worker: "_Worker") -> int:
        with self._lock:
            self._workers.discard(worker)
        return worker.end()


class _Worker:
    """A process and the line to it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._line, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ase_fastchgnet.parallel.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), **environment},
                start_new_session=True,  # Ctrl-C is for the caller, who ends the workers
            )

    def call(self, call: bytes) -> bytes:
        """(Succeeded or not, what it returned or raised), pickled.  EOFError or OSError if the worker has died."""
        self._line.send_bytes(call)
        return self._line.recv_bytes()

    def kill(self) -> None:
        """At once."""
        self._process.kill()

    def end(self) -> int:
        """Let it leave, or kill it; its exit code."""
        self._line.close()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _next(jobs: "queue.SimpleQueue[_Job | None]") -> _Job | None:
    try:
        return jobs.get_nowait()
    except queue.Empty:
        return None
