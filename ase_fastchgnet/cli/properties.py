"""What the commands that compute one property of each crystal have in common: phonons, eos, elastic."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .destination import stems, summary_of
from .inputs import Input, read_structures
from .options import out_option
from .outputs import atomic_folder, check_folder
from .report import Report, warnings_name
from .results import Row, print_table, results_file

if TYPE_CHECKING:
    from ase import Atoms

Columns = Sequence[tuple[str, str, str, str]]  # as print_table takes them


NoRelax = Annotated[
    bool, typer.Option("--no-relax", metavar="", help="Take the structure as it is, do not relax it first.")
]
Optimizer = Annotated[
    Literal["LBFGS", "BFGS", "FIRE", "FIRE2", "BFGSLineSearch", "LBFGSLineSearch", "MDMin"],
    typer.Option("--optimizer", metavar="NAME", help="LBFGS, BFGS, FIRE, … of ASE."),
]
OutFolder = Annotated[Path | None, out_option("A folder; of several structures, one folder for each in it.")]


def compute_each(
    files: Sequence[str],
    compute: Callable[["Atoms"], Any],
    row_of: Callable[[Any], Row],
    columns: Columns,
    *,
    out: Path | None,
    names: Collection[str],
    overwrite: bool,
) -> None:
    """`compute` for each structure: its summary on standard output, its files, called `names`, in a folder.

    The folder of a single structure is `out`; several have one each in it, and a table of `row_of` all of them is
    printed and written.  A structure that fails is reported, and the rest is done.
    """
    from ase_fastchgnet.workflows.relaxation import RelaxationError

    with Report("done") as report:
        inputs = list(read_structures(files, report))
        folders = _folders(out, inputs, names, overwrite=overwrite)
        rows: list[Row] = []
        structures: list[Atoms] = []
        for n, one in enumerate(inputs):
            try:
                with warnings_name([one.name]):
                    found = compute(one.atoms)
            except (ValueError, RelaxationError) as error:
                report.failed(one.name, error)
                continue
            print(f"{one.name}: {found}\n" if len(inputs) > 1 else found, flush=True)
            if n in folders:
                folders[n].mkdir(parents=True, exist_ok=True)
                with atomic_folder(folders[n]) as unfinished:
                    found.write(unfinished)
            rows.append({"structure": one.name, **row_of(found)})
            structures.append(found.structure)
            report.done()
        if len(inputs) > 1:
            print_table(rows, columns)
            if out is not None and rows:
                with results_file(summary_of(out)) as add:
                    for atoms, row in zip(structures, rows, strict=True):
                        add(atoms, row)


def _folders(
    out: Path | None, inputs: Sequence[Input], names: Collection[str], *, overwrite: bool
) -> Mapping[int, Path]:
    """Where each structure's files go, by its number; wrong usage if they may not."""
    if out is None or not inputs:
        return {}
    if len(inputs) == 1:
        check_folder(out, names, overwrite=overwrite)
        return {0: out}
    folders = {n: out / stem for n, stem in enumerate(stems(inputs))}
    check_folder(out, [summary_of(out).name], overwrite=overwrite)
    for folder in filter(Path.exists, folders.values()):  # the others are made when there is something for them
        check_folder(folder, names, overwrite=overwrite)
    return folders
