"""`fastchgnet predict`: energies, forces, stress and magnetic moments of one structure or of a hundred thousand."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (
    Device,
    Devices,
    Dtype,
    Files,
    Forces,
    Model,
    Overwrite,
    Tf32,
    devices_of,
    make_calculator,
    out_option,
)
from .outputs import check_free, check_suffix, suffix_of
from .report import Report, complain
from .results import RESULT_SUFFIXES, print_table, results_file, row_of

if TYPE_CHECKING:
    from ase_fastchgnet.calculator import FastCHGNet

GROWING = (".jsonl", ".parquet")  # results of many structures; written as they come, and resumed


def predict(
    files: Files,
    out: Annotated[
        Path | None, out_option(f"Write all results, by suffix: {', '.join([*RESULT_SUFFIXES, *GROWING])}.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", metavar="", help="Go on with a .jsonl or .parquet.", rich_help_panel="Output"),
    ] = False,
    overwrite: Overwrite = False,
    devices: Devices = None,
    model: Model = "0.3.0",
    device: Device = None,
    dtype: Dtype = "float32",
    tf32: Tf32 = False,
    forces: Forces = "conservative",
) -> None:
    """Energies, forces, stresses and magnetic moments of structures.

    Examples:
      fastchgnet predict POSCAR
      fastchgnet predict *.cif --out results.csv
      fastchgnet predict run.traj@::10 --out frames.extxyz --dtype float64
      fastchgnet predict crystals/ --out all.parquet --devices auto --resume

    The table shows energies (eV), the largest force (eV/Å), the pressure (GPa, compression positive) and the sum of
    the magnetic moments (μB, absolute values). Energies of 0.3.0 and 0.2.0 include the MP2020 corrections.

    .extxyz and .traj hold structures with all results, as ASE reads them; .json everything as plain numbers; .csv one
    line per structure. They are there when all is done. For very many structures there are .jsonl, a line of JSON each,
    and .parquet, a folder that pandas reads as one table: they grow in the order in which structures are done, and a
    run that was interrupted or killed goes on with --resume. FILES may be folders, ASE databases (.db), and .jsonl with
    a structure on each line. What cannot be used is named at the end, and the rest is done.
    """
    grows = out is not None and suffix_of(out) in GROWING
    if resume and not grows:
        raise typer.BadParameter(f"results that can be resumed go to {' or '.join(GROWING)}", param_hint="'--resume'")
    if resume and overwrite:
        raise typer.BadParameter("goes on with what is there, and --overwrite replaces it", param_hint="'--resume'")
    if out is not None:
        check_suffix(out, (*RESULT_SUFFIXES, *GROWING))
        if not grows:
            check_free(out, overwrite=overwrite)
        elif out.exists() and not (resume or overwrite):
            raise typer.BadParameter(
                f"{out} exists; go on with it with --resume, replace it with --overwrite, or choose another name",
                param_hint="'--out'",
            )
    calculator = make_calculator(model, device, dtype, devices, forces, tf32=tf32)
    with Report("evaluated") as report:
        if grows:
            assert out is not None
            _screen(files, out, calculator, report, devices=devices_of(devices), resume=resume, overwrite=overwrite)
        else:
            _tabulate(files, out, calculator, report, devices=devices_of(devices))


def _tabulate(
    files: Sequence[str], out: Path | None, calculator: "FastCHGNet", report: Report, *, devices: Any
) -> None:
    """All results at the end, in order: as a table, and in a file if there is one."""
    from ase_fastchgnet.workflows.calculators import with_results
    from ase_fastchgnet.workflows.screening import evaluate_many

    rows = []
    with results_file(out) if out else nullcontext() as add:
        for one in evaluate_many(files, calculator, devices=devices, progress=None):
            if one.prediction is None or one.atoms is None:
                report.failed(one.id, one.error)
                continue
            atoms = with_results(one.atoms, one.prediction.results())
            rows.append(row_of(one.id, atoms))
            if add:
                add(atoms, rows[-1])
            report.done()
    print_table(rows)


def _screen(files: Sequence[str], out: Path, calculator: "FastCHGNet", report: Report, **options: Any) -> None:
    """Results to a file that grows."""
    from ase_fastchgnet.workflows.screening import screen

    done = screen(files, out, calculator, **options)
    for failure in done.failures:
        report.failed(*failure)
    report.done(done.n_done)
    if done.n_skipped:
        failed = done.n_skipped + done.n_new - done.n_done - len(done.failures)
        complain(f"{done.n_skipped} structures were there already{f', {failed} of them failed' if failed else ''}")
    if done.n_new:
        workers = f", {len(done.busy)} workers, busy times max/mean {done.balance:.3f}" if len(done.busy) > 1 else ""
        pace = f"{done.n_new / done.seconds:.0f} structures/s, {done.n_atoms / done.seconds:.0f} atoms/s"
        complain(f"{done.n_new} structures in {done.seconds:.1f} s: {pace}{workers}")
    complain(f"written: {out}")
