"""evaluate_many and screen: any number of structures over devices and machines, streamed, nothing lost."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from ase_fastchgnet.calculator import FastCHGNet
from ase_fastchgnet.evaluation.evaluator import PROPERTIES
from ase_fastchgnet.parallel.crew import Devices
from ase_fastchgnet.parallel.scheduler import Submits
from ase_fastchgnet.progress import progress as progress_of
from ase_fastchgnet.workflows.result_files import Done, Record, open_results
from ase_fastchgnet.workflows.sources import Entry, check_apart, count, read_source
from ase_fastchgnet.workflows.streaming import Evaluated, EvaluationStream, in_order


def evaluate_many(
    source: Any,
    calculator: FastCHGNet | None = None,
    *,
    properties: Collection[str] = PROPERTIES,
    devices: Devices = None,
    executor: Submits | None = None,
    progress: bool | None = False,
) -> Iterator[Evaluated]:
    """Predictions for all structures of `source`, in order and as they come; memory does not grow with their number.

    source      what `read_source` takes: structures, (id, structure) pairs, files, folders, databases
    calculator  whose model and options are used; None: FastCHGNet()
    properties  as for `evaluate`
    devices     None: this process; "auto": a worker process for each CUDA device, or else for each core; a number of
                worker processes that share the cores; or a list such as ["cuda:0", "cuda:1"]
    executor    instead of devices: anything with the `submit` of concurrent.futures, as Dask's client.get_executor()
    progress    draw a bar; None: on a terminal

    A structure that cannot be read or evaluated, or that kills the process it is evaluated in, has an `error`.  The
    others go on: a chunk of structures whose worker died is tried again, one by one.
    """
    stream = EvaluationStream(calculator or FastCHGNet(), properties, devices, executor)
    results = stream.run(enumerate(read_source(source)))
    return in_order(results if progress is False else _watched(results, count(source), progress))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Screening:
    """What `screen` has done."""

    out: Path
    n_done: int  # structures with a result, those of an earlier run included
    failures: list[tuple[str, str]]  # (id, why) of this run
    n_skipped: int  # structures that an earlier run had seen
    n_new: int  # structures of this run
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
    resume     go on with what is in `out`: nothing that is there is evaluated again; by the same model only
    overwrite  replace what is in `out`

    A run that is killed at any moment leaves whole records only, and resumes.  Whatever can be wrong with `out` is said
    before the work begins: FileExistsError, ValueError or OSError.
    """
    stream = EvaluationStream(calculator or FastCHGNet(), properties, devices, executor)
    check_apart(Path(out), source)
    store = open_results(Path(out), resume=resume, overwrite=overwrite)
    try:
        model, tally = stream.model, _Tally()
        earlier = _Earlier(Path(out), {done.index: done for done in store.done()} if resume else {}, model)
        with progress_of("screen", count(source), progress) as meter:
            for results in stream.run(earlier.without(read_source(source))):
                store.append([_record(result, model) for result in results])
                tally.note(results)
                meter.update(earlier.n_skipped + tally.n_seen, tally.pace(meter.seconds))
            return Screening(
                out=Path(out),
                n_done=earlier.n_succeeded + tally.n_done,
                failures=tally.failures,
                n_skipped=earlier.n_skipped,
                n_new=tally.n_seen,
                n_atoms=tally.n_atoms,
                seconds=meter.seconds,
                busy=stream.busy,
            )
    finally:
        store.close()


class _Earlier:
    """What earlier runs have done of a source."""

    def __init__(self, out: Path, done: Mapping[int, Done], model: str) -> None:
        if others := {one.model for one in done.values()} - {model}:
            raise ValueError(f"{out} has results of {others.pop()}, and these would be of {model}; choose another name")
        self._out, self._done = out, done
        self.n_skipped = self.n_succeeded = 0

    def without(self, entries: Iterable[Entry]) -> Iterator[tuple[int, Entry]]:
        """The entries that are not done, with their numbers; ValueError if the records are of other structures."""
        for index, entry in enumerate(entries):
            done = self._done.get(index)
            if done is None:
                yield index, entry
            elif done.id in (entry.id, None) and (entry.atoms is None or done.formula in (_formula(entry.atoms), None)):
                self.n_skipped += 1
                self.n_succeeded += done.succeeded
            else:
                raise ValueError(
                    f"{self._out} belongs to another source: its structure {index} is {done.id!r} ({done.formula}), "
                    f"this one's is {entry.id!r}; resume with the same source, or choose another name for the results"
                )


class _Tally:
    """What has come of the structures of this run."""

    def __init__(self) -> None:
        self.n_done = self.n_atoms = 0
        self.failures: list[tuple[str, str]] = []  # (id, why)

    def note(self, results: Sequence[Evaluated]) -> None:
        """These are done with."""
        for result in results:
            if result.prediction is None:
                self.failures.append((result.id, result.error or ""))
            else:
                self.n_done += 1
                self.n_atoms += len(result.prediction.energies)

    @property
    def n_seen(self) -> int:
        return self.n_done + len(self.failures)

    def pace(self, seconds: float) -> str:
        """How fast it goes."""
        failed = f"  {len(self.failures)} failed" if self.failures else ""
        return f"{self.n_seen / seconds:.0f} structures/s  {self.n_atoms / seconds:.0f} atoms/s{failed}"


def _watched(results: Iterator[list[Evaluated]], total: int | None, shown: bool | None) -> Iterator[list[Evaluated]]:
    """The same results, with a bar that shows how many there have been."""
    tally = _Tally()
    with progress_of("predict", total, shown) as meter:
        for found in results:
            tally.note(found)
            meter.update(tally.n_seen, tally.pace(meter.seconds))
            yield found


def _formula(atoms: Atoms) -> str:
    return str(atoms.get_chemical_formula())


def _record(result: Evaluated, model: str) -> Record:
    """What goes to the disk."""
    record: Record = {"index": result.index, "id": result.id, "model": model}
    if result.atoms is not None:
        record["formula"] = _formula(result.atoms)
    if result.prediction is None:
        return record | {"error": result.error}
    assert result.atoms is not None
    p, n = result.prediction, len(result.atoms)
    return record | {
        "n_atoms": n,
        "energy_eV": p.energy,
        "energy_eV_per_atom": p.energy / n,
        "energies_eV": p.energies,
        "forces_eV_A": p.forces,
        "stress_eV_A3": p.stress,
        "magmoms_muB": p.magmoms,
        "atoms": result.atoms,
    }
