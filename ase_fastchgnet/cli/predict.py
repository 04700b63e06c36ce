"""`fastchgnet predict`: energies, forces, stress and magnetic moments of many structures."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from .inputs import Input, expand, read_structures
from .options import Device, Dtype, Files, Model, Overwrite, make_calculator, out_option
from .outputs import check_free, check_suffix
from .report import Report, warnings_name
from .results import RESULT_SUFFIXES, print_table, results_file, row_of

if TYPE_CHECKING:
    from ase_fastchgnet.calculator import FastCHGNet
    from ase_fastchgnet.evaluation import Prediction

CHUNK_ATOMS = 1_000  # read and evaluated before the next are read; enough to fill several batches


def predict(
    files: Files,
    out: Annotated[Path | None, out_option(f"Write all results, by suffix: {', '.join(RESULT_SUFFIXES)}.")] = None,
    overwrite: Overwrite = False,
    model: Model = "0.3.0",
    device: Device = None,
    dtype: Dtype = "float32",
) -> None:
    """Energies, forces, stresses and magnetic moments of structures.

    Examples:
      fastchgnet predict POSCAR
      fastchgnet predict *.cif --out results.csv
      fastchgnet predict run.traj@::10 --out frames.extxyz --dtype float64

    The table shows energies (eV), the largest force (eV/Å), the pressure (GPa, compression positive) and the sum of
    the magnetic moments (μB, absolute values). Energies of 0.3.0 and 0.2.0 include the MP2020 corrections.

    .extxyz and .traj hold structures with all results, as ASE reads them; .json everything as plain numbers; .csv one
    line per structure. A file that cannot be used is named at the end, and the rest is done.
    """
    if out is not None:
        check_suffix(out, RESULT_SUFFIXES)
        check_free(out, overwrite=overwrite)

    from ase_fastchgnet.workflows.calculators import with_results
    from ase_fastchgnet.workflows.progress import progress

    calculator = make_calculator(model, device, dtype)
    calculator.set(skin=0)  # nothing moves here
    files = expand(files)
    rows = []
    with Report("evaluated") as report:
        with results_file(out) if out else nullcontext() as add, progress("predict", len(files)) as meter:
            inputs = read_structures(files, report, meter.update)
            for one, prediction in _evaluate(inputs, calculator, report):
                atoms = with_results(one.atoms, prediction.results())
                rows.append(row_of(one.name, atoms))
                if add:
                    add(atoms, rows[-1])
                report.done()
        print_table(rows)


def _evaluate(
    inputs: Iterable[Input], calculator: "FastCHGNet", report: Report
) -> Iterator[tuple[Input, "Prediction"]]:
    """Predictions for what can be evaluated; the rest is reported."""
    for chunk in _chunks(inputs):
        with warnings_name([one.name for one in chunk]):
            found = calculator.moving_batch().evaluate({n: one.atoms for n, one in enumerate(chunk)})
        for n, prediction in found.items():
            if isinstance(prediction, Exception):
                report.failed(chunk[n].name, prediction)
            else:
                yield chunk[n], prediction


def _chunks(inputs: Iterable[Input]) -> Iterator[list[Input]]:
    chunk: list[Input] = []
    n_atoms = 0
    for one in inputs:
        chunk.append(one)
        n_atoms += len(one.atoms)
        if n_atoms >= CHUNK_ATOMS:
            yield chunk
            chunk, n_atoms = [], 0
    if chunk:
        yield chunk
