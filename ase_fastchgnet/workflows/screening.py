"""evaluate_many and screen: any number of structures over devices and machines, streamed, nothing lost."""

import itertools
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ase import Atoms

from ase_fastchgnet.calculator import FastCHGNet
from ase_fastchgnet.evaluation import Prediction
from ase_fastchgnet.evaluation.chunk import ChunkResult, Item, evaluate_chunk
from ase_fastchgnet.evaluation.cost import Learning
from ase_fastchgnet.evaluation.evaluator import PROPERTIES
from ase_fastchgnet.graph.size import Size, size_of
from ase_fastchgnet.parallel.crew import Devices, crew
from ase_fastchgnet.parallel.scheduler import KillsWorkers, Submits, run_chunks
from ase_fastchgnet.workflows.progress import progress as progress_of
from ase_fastchgnet.workflows.result_files import Done, Record, open_results
from ase_fastchgnet.workflows.sources import Entry, read_source

_SYSTEM = re.compile(r"^system (\d+): ")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluated:
    """A structure of the source and what came of it."""

    index: int  # in the source
    id: str
    atoms: Atoms | None  # None if it could not be read
    prediction: Prediction | None
    error: str | None  # set if there is no prediction


def evaluate_many(
    source: Any,
    calculator: FastCHGNet | None = None,
    *,
    properties: Collection[str] = PROPERTIES,
    devices: Devices = None,
    executor: Submits | None = None,
) -> Iterator[Evaluated]:
    """Predictions for all structures of `source`, in order and as they come; memory does not grow with their number.

    source      what `read_source` takes: structures, (id, structure) pairs, a file, a folder, a database
    calculator  whose model and options are used; None: FastCHGNet()
    properties  as for `evaluate`
    devices     None: this process; "auto": a worker process for each CUDA device, or else for each core; a number of
                worker processes that share the cores; or a list such as ["cuda:0", "cuda:1"]
    executor    instead of devices: anything with the `submit` of concurrent.futures, as Dask's client.get_executor()

    A structure that cannot be read or evaluated, or that kills the process it is evaluated in, has an `error`.  The
    others go on: a chunk of structures whose worker died is tried again, one by one.
    """
    screening = _Screening(calculator or FastCHGNet(), properties, devices, executor)
    return _in_order(screening.run(enumerate(read_source(source))))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Screening:
    """What `screen` has done."""

    out: Path
    n_done: int  # structures with a result, those of an earlier run included
    failures: list[tuple[str, str]]  # (id, why) of this run
    n_skipped: int  # structures that an earlier run had done
    n_atoms: int  # evaluated in this run
    seconds: float
    busy: dict[str, float]  # seconds that each worker evaluated

    @property
    def balance(self) -> float:
        """Longest over mean time that workers were busy: 1 is perfect; 1 too if nothing was done."""
        times = list(self.busy.values())
        return max(times) * len(times) / sum(times) if times else 1.0


def screen(
    source: Any,
    out: str | Path,
    calculator: FastCHGNet | None = None,
    *,
    properties: Collection[str] = PROPERTIES,
    devices: Devices = None,
    executor: Submits | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Screening:
    """Predictions for all structures of `source`, written to `out` as they come; arguments as for `evaluate_many`.

    out        .jsonl: an object a line; .parquet: a folder of Parquet files that are read as one table; .extxyz:
               structures with results.  In the order in which they are done; "index" and "id" say which is which.
    resume     go on with what is in `out`: nothing that is there is evaluated again
    overwrite  replace what is in `out`

    A run that is killed at any moment leaves whole records only, and resumes.  Whatever can be wrong with `out` is said
    before the work begins: FileExistsError, ValueError or OSError.
    """
    screening = _Screening(calculator or FastCHGNet(), properties, devices, executor)
    store = open_results(Path(out), resume=resume, overwrite=overwrite)
    try:
        ledger = _Ledger(Path(out), {done.index: done for done in store.done()} if resume else {})
        total = len(source) if isinstance(source, Sequence) and not isinstance(source, str) else None
        with progress_of("screen", total, progress) as meter:
            for results in screening.run(ledger.open_entries(read_source(source))):
                store.append([_record(result) for result in results])
                ledger.note(results)
                meter.update(ledger.n_seen, ledger.pace(meter.seconds))
            return ledger.summary(meter.seconds, screening.busy)
    finally:
        store.close()


class _Screening:
    """Entries → results, chunk by chunk."""

    CHUNK_SECONDS = 0.25  # short, so that all workers end at about the same time; long against the cost of a message
    CHUNK_STRUCTURES = 200
    FOREIGN = 100  # chunks that an executor of which nothing is known holds at a time

    def __init__(
        self, calculator: FastCHGNet, properties: Collection[str], devices: Devices, executor: Submits | None
    ) -> None:
        if executor is not None and devices is not None:
            raise ValueError("devices and executor are two ways to say where to work: give one")
        if isinstance(properties, str) or not set(properties) <= set(PROPERTIES):
            raise ValueError(f"properties={properties!r}: expected a collection of {', '.join(map(repr, PROPERTIES))}")
        options = calculator.chunk_options(properties)
        here = devices is None and executor is None
        self._options = options if here else options.portable()
        self._crew = crew(devices) if executor is None else nullcontext((executor, self.FOREIGN))
        self._cutoffs = calculator.cutoffs
        self._cost = Learning()
        self.busy: dict[str, float] = {}

    def run(self, entries: Iterable[tuple[int, Entry]]) -> Iterator[list[Evaluated]]:
        """Results in whatever order they are done; those of entries without a structure come with a later chunk."""
        unread: list[Evaluated] = []
        known: dict[int, Entry] = {}

        def readable() -> Iterator[Item]:
            for index, entry in entries:
                if entry.atoms is None:
                    unread.append(_evaluated(index, entry, entry.error or ""))
                else:
                    known[index] = entry
                    yield Item(index, entry.atoms)

        with self._crew as (executor, in_flight):
            work = partial(evaluate_chunk, self._options)
            for items, answer in run_chunks(self._chunks(readable()), work, executor, in_flight=in_flight):
                if isinstance(answer, KillsWorkers):
                    outcomes: Sequence[Prediction | str] = [str(answer)]
                else:
                    outcomes = self._noted(answer, known)
                entries_of = [(item.index, known.pop(item.index)) for item in items]
                pairs = zip(entries_of, outcomes, strict=True)
                yield [*unread, *(_evaluated(index, entry, outcome) for (index, entry), outcome in pairs)]
                unread.clear()
        if unread:
            yield unread

    def _noted(self, answer: ChunkResult, known: Mapping[int, Entry]) -> list[Prediction | str]:
        """The outcomes; what else the answer says is remembered, and its warnings are given here, under the ids."""
        self.busy[answer.worker] = self.busy.get(answer.worker, 0.0) + answer.seconds
        if answer.size.structures:
            self._cost.measured(answer.size, answer.seconds)
        for text in answer.warnings:
            number = _SYSTEM.match(text)
            warnings.warn(f"{known[int(number[1])].id}: {text[number.end() :]}" if number else text, stacklevel=2)
        return answer.outcomes

    def _chunks(self, items: Iterable[Item]) -> Iterator[list[Item]]:
        """Consecutive items that take CHUNK_SECONDS together, as far as is known, or one that takes longer."""
        chunk: list[Item] = []
        seconds = 0.0
        for item in items:
            cost = self._cost.model.seconds(self._size(item))
            if chunk and (seconds + cost > self.CHUNK_SECONDS or len(chunk) == self.CHUNK_STRUCTURES):
                yield chunk
                chunk, seconds = [], 0.0
            chunk.append(item)
            seconds += cost
        if chunk:
            yield chunk

    def _size(self, item: Item) -> Size:
        try:
            return size_of(item.atoms, self._cutoffs)
        except ValueError:  # the worker says what is wrong with it
            return Size(1, len(item.atoms), 0, 0)


class _Ledger:
    """What of a source is done, in this run and in earlier ones."""

    def __init__(self, out: Path, done: Mapping[int, Done]) -> None:
        self._out, self._done = out, done
        self._n_done = sum(one.succeeded for one in done.values())
        self._failures: list[tuple[str, str]] = []
        self._n_skipped = self._n_new = self._n_atoms = 0

    def open_entries(self, entries: Iterable[Entry]) -> Iterator[tuple[int, Entry]]:
        """The entries that are not done, with their numbers; ValueError if the records are of other structures."""
        for index, entry in enumerate(entries):
            done = self._done.get(index)
            if done is None:
                yield index, entry
            elif done.id == entry.id:
                self._n_skipped += 1
            else:
                raise ValueError(
                    f"{self._out} belongs to another source: its structure {index} is {done.id!r}, this one's is "
                    f"{entry.id!r}; resume with the same source, or choose another name for the results"
                )

    def note(self, results: Sequence[Evaluated]) -> None:
        """These are on the disk."""
        for result in results:
            self._n_new += 1
            if result.prediction is None:
                self._failures.append((result.id, result.error or ""))
            else:
                self._n_done += 1
                self._n_atoms += len(result.prediction.energies)

    @property
    def n_seen(self) -> int:
        return self._n_skipped + self._n_new

    def pace(self, seconds: float) -> str:
        """How fast it goes."""
        failed = f"  {len(self._failures)} failed" if self._failures else ""
        return f"{self._n_new / seconds:.0f} structures/s  {self._n_atoms / seconds:.0f} atoms/s{failed}"

    def summary(self, seconds: float, busy: Mapping[str, float]) -> Screening:
        return Screening(
            out=self._out,
            n_done=self._n_done,
            failures=self._failures,
            n_skipped=self._n_skipped,
            n_atoms=self._n_atoms,
            seconds=seconds,
            busy=dict(busy),
        )


def _evaluated(index: int, entry: Entry, outcome: Prediction | str) -> Evaluated:
    return Evaluated(
        index=index,
        id=entry.id,
        atoms=entry.atoms,
        prediction=None if isinstance(outcome, str) else outcome,
        error=outcome if isinstance(outcome, str) else None,
    )


def _in_order(results: Iterator[list[Evaluated]]) -> Iterator[Evaluated]:
    waiting: dict[int, Evaluated] = {}
    following = 0
    for result in itertools.chain.from_iterable(results):
        waiting[result.index] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _record(result: Evaluated) -> Record:
    """What goes to the disk."""
    record: Record = {"index": result.index, "id": result.id}
    if result.prediction is None:
        return record | {"error": result.error}
    assert result.atoms is not None
    p, n = result.prediction, len(result.atoms)
    return record | {
        "formula": result.atoms.get_chemical_formula(),
        "n_atoms": n,
        "energy_eV": p.energy,
        "energy_eV_per_atom": p.energy / n,
        "energies_eV": p.energies,
        "forces_eV_A": p.forces,
        "stress_eV_A3": p.stress,
        "magmoms_muB": p.magmoms,
        "atoms": result.atoms,
    }
