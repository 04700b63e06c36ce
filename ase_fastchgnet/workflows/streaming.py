"""Structures to predictions, by whoever works: in chunks of equal cost, whatever comes back first."""

import itertools
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ase import Atoms

from ase_fastchgnet.calculator import FastCHGNet
from ase_fastchgnet.evaluation import Prediction
from ase_fastchgnet.evaluation.chunk import ChunkResult, Item, evaluate_chunk
from ase_fastchgnet.evaluation.cost import Learning, chunks
from ase_fastchgnet.evaluation.evaluator import PROPERTIES
from ase_fastchgnet.graph import Cutoffs
from ase_fastchgnet.graph.size import Size, expected_size
from ase_fastchgnet.parallel.crew import MANY, Devices, check_crew, crew
from ase_fastchgnet.parallel.scheduler import KillsWorkers, Submits, run_chunks
from ase_fastchgnet.workflows.sources import Entry

_SYSTEM = re.compile(r"^system (\d+): ")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluated:
    """A structure of the source and what came of it."""

    index: int  # in the source
    id: str
    atoms: Atoms | None  # None if it could not be read
    prediction: Prediction | None
    error: str | None  # set if there is no prediction


class EvaluationStream:
    """Entries → predictions, chunk by chunk; arguments as for `evaluate_many`."""

    def __init__(
        self, calculator: FastCHGNet, properties: Collection[str], devices: Devices, executor: Submits | None
    ) -> None:
        if isinstance(properties, str) or not set(properties) <= set(PROPERTIES):
            raise ValueError(f"properties={properties!r}: expected a collection of {', '.join(map(repr, PROPERTIES))}")
        options = calculator.chunk_options(properties)
        here = devices is None and executor is None
        self._options = options if here else options.for_workers(devices)
        check_crew(devices, executor)
        self._crew = crew(devices, executor)
        self._cutoffs = calculator.cutoffs
        self._cost = Learning()
        self.busy: dict[str, float] = {}  # seconds that each worker evaluated

    @property
    def model(self) -> str:
        """Whose predictions these are."""
        return self._options.describe()

    def run(self, entries: Iterable[tuple[int, Entry]]) -> Iterator[list[Evaluated]]:
        """Results in whatever order they are done; those of entries without a structure come with a later chunk."""
        unread: list[Evaluated] = []
        known: dict[int, tuple[Entry, Size]] = {}

        def readable() -> Iterator[Item]:
            for index, entry in entries:
                if entry.atoms is None:
                    unread.append(_evaluated(index, entry, entry.error or ""))
                else:
                    known[index] = entry, _expected_size(entry.atoms, self._cutoffs)
                    yield Item(index, entry.atoms)

        def seconds_of(item: Item) -> float:
            return self._cost.model.seconds(known[item.index][1])

        with self._crew as (executor, in_flight):
            work = partial(evaluate_chunk, self._options)
            pieces = chunks(readable(), seconds_of, among=min(in_flight, MANY))
            for items, answer in run_chunks(pieces, work, executor, in_flight=in_flight):
                entries_of, sizes = zip(*(known.pop(item.index) for item in items), strict=True)
                if isinstance(answer, KillsWorkers):
                    outcomes: Sequence[Prediction | str] = [str(answer)]
                else:
                    outcomes = answer.outcomes
                    self._note(answer, {item.index: e.id for item, e in zip(items, entries_of, strict=True)}, sizes)
                found = [_evaluated(i.index, e, o) for i, e, o in zip(items, entries_of, outcomes, strict=True)]
                yield [*unread, *found]
                unread.clear()
        if unread:
            yield unread

    def _note(self, answer: ChunkResult, ids: Mapping[int, str], sizes: Iterable[Size]) -> None:
        """What else an answer says is remembered, and its warnings are given here, under the ids."""
        self.busy[answer.worker] = self.busy.get(answer.worker, 0.0) + answer.seconds
        self._cost.measured(Size.total(sizes), answer.seconds)
        for text in answer.warnings:
            number = _SYSTEM.match(text)
            warnings.warn(f"{ids[int(number[1])]}: {text[number.end() :]}" if number else text, stacklevel=2)


def in_order(results: Iterator[list[Evaluated]]) -> Iterator[Evaluated]:
    """The results one by one, as the source has them."""
    waiting: dict[int, Evaluated] = {}
    following = 0
    for result in itertools.chain.from_iterable(results):
        waiting[result.index] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _evaluated(index: int, entry: Entry, outcome: Prediction | str) -> Evaluated:
    return Evaluated(
        index=index,
        id=entry.id,
        atoms=entry.atoms,
        prediction=None if isinstance(outcome, str) else outcome,
        error=outcome if isinstance(outcome, str) else None,
    )


def _expected_size(atoms: Atoms, cutoffs: Cutoffs) -> Size:
    try:
        return expected_size(atoms, cutoffs)
    except (ValueError, ArithmeticError):  # the worker says what is wrong with it
        return Size(1, len(atoms), 0, 0)
