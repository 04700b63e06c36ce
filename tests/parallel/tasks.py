"""What workers do in the tests; in a module of its own, because workers import it by name."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path


def doubled(items: Sequence[int]) -> list[int]:
    return [2 * item for item in items]


def doubled_but_13_kills(items: Sequence[int]) -> list[int]:
    if 13 in items:
        os.kill(os.getpid(), signal.SIGKILL)
    return doubled(items)


def doubled_once_dead(items: Sequence[tuple[int, str]]) -> list[int]:
    """Dies the first time it sees an item; a file remembers."""
    for _, path in items:
        if not Path(path).exists():
            Path(path).touch()
            os._exit(1)
    return [2 * item for item, _ in items]


def failing(items: Sequence[int]) -> list[int]:
    raise ValueError(f"cannot do {items}")


def unpicklable(items: Sequence[int]) -> object:
    return lambda: items


class Unpicklable(Exception):
    """Can be pickled, and not unpickled: it takes two arguments and keeps one."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(what)


def raise_unpicklable(items: Sequence[int]) -> None:
    raise Unpicklable("it", "because")


def always_dies(items: Sequence[int]) -> None:
    os._exit(3)


def slow(items: Sequence[float]) -> int:
    time.sleep(sum(items))
    return os.getpid()


def environment(names: Sequence[str]) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def write_pid_and_sleep(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)
