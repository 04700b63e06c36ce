"""relax_many: many structures relaxed together, in this process or in several."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Unpack

from ase.calculators.calculator import Calculator

from ase_fastchgnet.calculator import FastCHGNet
from ase_fastchgnet.evaluation.cost import chunks
from ase_fastchgnet.evaluation.moving import Failure
from ase_fastchgnet.graph import Cutoffs
from ase_fastchgnet.graph.size import expected_size
from ase_fastchgnet.parallel.crew import MANY, Devices, crew
from ase_fastchgnet.parallel.scheduler import KillsWorkers, Submits, run_chunks
from ase_fastchgnet.progress import progress as progress_of
from ase_fastchgnet.workflows.lockstep import ROWS, run_in_lockstep
from ase_fastchgnet.workflows.relaxation import Relaxation, RelaxationError, RelaxOptions, relax
from ase_fastchgnet.workflows.structures import StructureT, as_atoms

Numbered = tuple[int, StructureT]
Outcome = Relaxation[StructureT] | RelaxationError | Failure | KillsWorkers


def relax_many(
    structures: Iterable[StructureT],
    calculator: FastCHGNet | None = None,
    *,
    devices: Devices = None,
    executor: Submits | None = None,
    progress: bool | None = None,
    **options: Unpack[RelaxOptions],
) -> list[Outcome[StructureT]]:
    """What `relax` gives for each structure, in order; in the place of one that failed, its error.

    Structures advance together: all calculations of a step are one batch, a structure leaves when it is done, and the
    next one enters.  Each has its own optimiser, and results differ from those of `relax` by rounding only.  `devices`
    and `executor` are those of `evaluate_many`: who works besides this process, each on some structures at a time.
    """
    total = len(structures) if isinstance(structures, Sequence) else 0
    results: dict[int, Any] = {}
    with progress_of("relax", total, progress) as meter:
        for number, result in relax_as_completed(structures, calculator, devices=devices, executor=executor, **options):
            results[number] = result
            failed = sum(isinstance(found, Exception) for found in results.values())
            meter.update(len(results), f"{failed} failed" if failed else "")
    return [results[number] for number in sorted(results)]


def relax_as_completed(
    structures: Iterable[StructureT],
    calculator: FastCHGNet | None = None,
    *,
    devices: Devices = None,
    executor: Submits | None = None,
    **options: Unpack[RelaxOptions],
) -> Iterator[tuple[int, Outcome[StructureT]]]:
    """(number, result) of each structure when it is done; `structures` is read as room gets free."""
    calculator = calculator or FastCHGNet()
    if devices is None and executor is None:
        yield from _together(enumerate(structures), calculator, options)
        return
    calculator.chunk_options().for_workers(devices)  # can they work with it?
    with crew(devices, executor) as (workers, in_flight):
        # As many as advance together in one process; how many steps they will take, nobody knows.
        rows_of = partial(_rows, calculator.cutoffs)
        pieces = chunks(enumerate(structures), rows_of, most=ROWS, among=min(in_flight, MANY))
        work = partial(_relax_chunk, calculator, options)
        for items, answer in run_chunks(pieces, work, workers, in_flight=in_flight):
            if isinstance(answer, KillsWorkers):
                yield items[0][0], answer
                continue
            for text in answer.warnings:
                warnings.warn(text, stacklevel=2)
            yield from answer.outcomes


class _Answer(NamedTuple):
    outcomes: list[tuple[int, Any]]
    warnings: list[str]


def _relax_chunk(calculator: FastCHGNet, options: RelaxOptions, items: Sequence[Numbered[StructureT]]) -> _Answer:
    """The task of a worker."""
    with warnings.catch_warnings(record=True) as noticed:
        warnings.simplefilter("always", UserWarning)
        outcomes = list(_together(items, calculator, options))
    return _Answer(outcomes, [str(warning.message) for warning in noticed])


def _together(
    structures: Iterable[Numbered[StructureT]], calculator: FastCHGNet, options: RelaxOptions
) -> Iterator[tuple[int, Any]]:
    programs = ((number, _program(structure, options)) for number, structure in structures)
    for number, outcome in run_in_lockstep(programs, calculator):
        if isinstance(outcome, Exception) and not isinstance(outcome, RelaxationError | Failure):
            raise outcome
        yield number, outcome


def _program(structure: StructureT, options: RelaxOptions) -> Callable[[Calculator], Relaxation[StructureT]]:
    return lambda calculator: relax(structure, calculator, progress=False, **options)


def _rows(cutoffs: Cutoffs, item: Numbered[Any]) -> int:
    try:
        size = expected_size(as_atoms(item[1]), cutoffs)
    except (ValueError, ArithmeticError):  # the worker says what is wrong with it
        return 0
    return size.edges + size.angles
