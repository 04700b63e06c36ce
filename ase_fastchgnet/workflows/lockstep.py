"""Many ASE programs side by side, their calculations in batches.

ASE's optimisers and integrators ask for forces in the middle of their code.  So each program runs in a thread of its
own, used as a coroutine: just one thread runs at any time, until its program asks for a calculation or ends.  When all
wait, what they wait for is evaluated as one batch.  The programs are the same as for a single structure, and the order
of events does not depend on timing.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from ase_fastchgnet.calculator import FastCHGNet, changes
from ase_fastchgnet.evaluation import Prediction

T = TypeVar("T")
Program = Callable[[Calculator], T]

ROWS = 40_000  # edges + angles of all structures in flight: two batches of evaluate()'s size
FIRST = 8  # programs started before the size of any structure is known; then at most twice as many a round


def run_in_lockstep(
    programs: Iterable[tuple[int, Program[T]]], calculator: FastCHGNet
) -> Iterator[tuple[int, T | Exception]]:
    """Yields (number, result) as programs end, or the exception that ended one.

    `programs` are (number, program), each number once, and read as room gets free.  A program is called with the
    calculator to use, which gives energy, forces, stress and magnetic moments as `calculator` would.  Closing the
    iterator ends all programs at their next calculation.
    """
    waiting = iter(programs)
    batch = calculator.moving_batch()
    active: dict[int, _Coroutine[T]] = {}
    more = True
    try:
        while True:
            while more and _has_room(active, batch.rows):
                number, program = next(waiting, (-1, None))
                more = program is not None
                if program is not None:
                    active[number] = _Coroutine(program)
                    active[number].resume(None)
            answers = batch.evaluate({n: c.request for n, c in active.items() if c.request is not None})
            for number, answer in answers.items():
                active[number].resume(answer)
            for number in [n for n, c in active.items() if c.request is None]:
                yield number, active.pop(number).result()
                batch.forget(number)
            if not active and not more:
                return
    finally:
        for coroutine in active.values():
            coroutine.cancel()


def _has_room(active: "dict[int, _Coroutine[T]]", rows: Callable[[int], int | None]) -> bool:
    known = [size for size in map(rows, active) if size is not None]
    if len(active) >= max(FIRST, 2 * len(known)):
        return False
    mean = sum(known) / len(known) if known else 0
    return sum(known) + mean * (len(active) - len(known)) < ROWS


class _Cancelled(BaseException):
    """Ends a program whose result nobody wants."""


class _Coroutine(Generic[T]):
    """A program in a thread that runs only while somebody waits in `resume`."""

    def __init__(self, program: Program[T]) -> None:
        self.request: Atoms | None = None  # what it waits for; None once it has ended
        self._answer: Prediction | BaseException | None = None
        self._outcome: T | BaseException | None = None
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(program,), daemon=True)
        self._thread.start()

    def resume(self, answer: "Prediction | BaseException | None") -> None:
        """Let the program run, with the answer to its request, until its next request or its end."""
        self._answer = answer
        self._go.release()
        self._back.acquire()

    def cancel(self) -> None:
        """End the program, if it has not ended."""
        self._answer = _Cancelled()
        self._go.release()
        self._thread.join()

    def result(self) -> T | Exception:
        """What the program returned or raised."""
        self._thread.join()
        outcome: Any = self._outcome
        if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    def ask(self, atoms: Atoms) -> Prediction:
        """Called in the thread: hand the turn back until there is an answer."""
        if isinstance(self._answer, _Cancelled):  # it was running when it was cancelled
            raise self._answer
        self.request = atoms
        self._back.release()
        self._go.acquire()
        if isinstance(self._answer, Prediction):
            return self._answer
        assert self._answer is not None
        raise self._answer

    def _run(self, program: Program[T]) -> None:
        self._go.acquire()
        try:
            self._outcome = program(LockstepCalculator(self.ask))
        except BaseException as error:
            self._outcome = error
        self.request = None
        self._back.release()


class LockstepCalculator(Calculator):
    """The calculator a program in lockstep works with: all it computes comes from the batch."""

    implemented_properties = FastCHGNet.implemented_properties
    ignored_changes = FastCHGNet.ignored_changes
    discard_results_on_any_change = True

    def __init__(self, ask: Callable[[Atoms], Prediction]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ask = ask

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What differs from the geometry of the results."""
        del tol
        return changes(self.atoms, atoms)

    def calculate(
        self, atoms: Atoms | None = None, properties: Iterable[str] = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Everything at once, whatever was asked for."""
        del properties, system_changes
        assert atoms is not None
        self.results = self._ask(atoms).results()
        self.atoms = atoms.copy()
