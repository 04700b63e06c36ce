"""A worker process: `python -m ase_fastchgnet.parallel.worker FILENO` answers calls until the line is closed."""

import os
import pickle
import sys
import threading
import time
from multiprocessing.connection import Connection

LOOK_SECONDS = 1.0  # between two looks whether the parent is there


def serve(line: Connection) -> None:
    """Answers each call with (True, what it returned) or (False, the exception it raised)."""
    while True:
        try:
            call = line.recv_bytes()
        except EOFError:
            return
        try:
            # From the process that started this one, over a socket that only the two of them have.
            function, args, kwargs = pickle.loads(call)
            answer = _packed(True, function(*args, **kwargs))
        except Exception as error:
            answer = _packed(False, error)
        try:
            line.send_bytes(answer)
        except BrokenPipeError:  # nobody is left to hear it
            return


def leave_with(parent: int) -> None:
    """Ends this process when its parent has ended, whatever it is doing."""
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


def _packed(succeeded: bool, value: object) -> bytes:
    try:
        return pickle.dumps((succeeded, value), pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        return pickle.dumps((False, TypeError(f"the answer {value!r:.200} cannot be pickled: {error}")))


if __name__ == "__main__":
    threading.Thread(target=leave_with, args=(os.getppid(),), daemon=True).start()
    with Connection(int(sys.argv[1])) as line:
        serve(line)
