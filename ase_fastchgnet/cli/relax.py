"""`fastchgnet relax`: structures to their nearest minimum, many at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .destination import SUFFIXES, Put, check_file, destination, is_folder, summary_of
from .inputs import Input, read_structures
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
from .outputs import atomic, check_free, check_suffix
from .report import Report, warnings_name
from .results import Row, print_table, results_file, row_of

if TYPE_CHECKING:
    from ase import Atoms

    from ase_fastchgnet.calculator import FastCHGNet
    from ase_fastchgnet.workflows.relaxation import Relaxation

    Outcome = Relaxation[Atoms] | Exception

COLUMNS = (
    ("n_atoms", "atoms", "", "d"),
    ("n_steps", "steps", "", "d"),
    ("energy_eV", "energy", "eV", "z.4f"),
    ("energy_eV_per_atom", "energy/atom", "eV", "z.4f"),
    ("fmax_eV_A", "fmax", "eV/Å", "z.3f"),
    ("pressure_GPa", "pressure", "GPa", "z.2f"),
    ("volume_change_percent", "ΔV", "%", "+z.2f"),
)


def relax(
    files: Files,
    fmax: Annotated[float, typer.Option(metavar="EV/Å", help="Done when no force is larger.")] = 0.05,
    steps: Annotated[int, typer.Option(metavar="N", min=0, help="At most so many; 0 is a single point.")] = 500,
    optimizer: Annotated[
        Literal["FIRE", "FIRE2", "BFGS", "LBFGS", "BFGSLineSearch", "LBFGSLineSearch", "MDMin"],
        typer.Option(metavar="NAME", help="FIRE, FIRE2, BFGS, LBFGS, … of ASE."),
    ] = "FIRE",
    fixed_cell: Annotated[bool, typer.Option("--fixed-cell", metavar="", help="Move the atoms only.")] = False,
    constant_volume: Annotated[
        bool, typer.Option("--constant-volume", metavar="", help="Change the cell's shape, not its volume.")
    ] = False,
    pressure: Annotated[float, typer.Option(metavar="GPA", help="Hydrostatic pressure.")] = 0.0,
    fix_symmetry: Annotated[bool, typer.Option("--fix-symmetry", metavar="", help="Keep the space group.")] = False,
    out: Annotated[
        Path | None, out_option(f"A file ({', '.join(SUFFIXES)}), or a folder with a file for each.")
    ] = None,
    format: Annotated[
        Literal["cif", "vasp", "extxyz", "json"],
        typer.Option(metavar="cif|vasp|extxyz|json", help="Of the files in a folder.", rich_help_panel="Output"),
    ] = "cif",
    trajectory: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Every step of one structure: .traj, .extxyz.", rich_help_panel="Output"),
    ] = None,
    overwrite: Overwrite = False,
    devices: Devices = None,
    model: Model = "0.3.0",
    device: Device = None,
    dtype: Dtype = "float32",
    tf32: Tf32 = False,
    forces: Forces = "conservative",
) -> None:
    """Relax atoms and cell to the nearest minimum; many structures advance together.

    Examples:
      fastchgnet relax POSCAR --out CONTCAR
      fastchgnet relax *.cif --out relaxed/ --fmax 0.01 --devices auto
      fastchgnet relax candidates.extxyz --out relaxed.extxyz --pressure 10

    The cell relaxes too if it is periodic in three directions. Constraints that the file holds (selective dynamics of a
    POSCAR) are kept. fmax is in eV/Å, pressures in GPa.

    A folder gets each structure as soon as it is done, and summary.csv at the end. A structure that does not converge
    is written and counts as failed; one that explodes is not written.
    """
    if fixed_cell and (constant_volume or pressure):
        raise typer.BadParameter("--pressure and --constant-volume concern the cell, which --fixed-cell holds")
    check_file(out, overwrite=overwrite)
    if trajectory is not None:
        check_suffix(trajectory, (".traj", ".extxyz"), option="--trajectory")
        check_free(trajectory, overwrite=overwrite, option="--trajectory")
    with Report("relaxed") as report:
        inputs = list(read_structures(files, report))
        sink = destination(out, format, inputs, overwrite=overwrite)
        if trajectory is not None and len(inputs) > 1:
            raise typer.BadParameter(
                f"it is for one structure, and there are {len(inputs)}", param_hint="'--trajectory'"
            )
        calculator = make_calculator(model, device, dtype, devices, forces, tf32=tf32)
        options = {
            "fmax": fmax,
            "steps": steps,
            "optimizer": optimizer,
            "relax_cell": False if fixed_cell else None,
            "pressure": pressure,
            "constant_volume": constant_volume,
            "fix_symmetry": fix_symmetry,
            "keep_frames": trajectory is not None,
        }
        rows: dict[int, Row] = {}
        with sink as put:
            for number, outcome in _relaxations(inputs, calculator, options, devices_of(devices)):
                rows |= _settle(number, inputs[number], outcome, put, report, wants_convergence=steps > 0)
                if trajectory is not None and not isinstance(outcome, Exception):
                    with atomic(trajectory) as unfinished:
                        outcome.write(unfinished, trajectory=True)
        print_table([rows[number] for number in sorted(rows)], COLUMNS)
        if out is not None and is_folder(out):
            with results_file(summary_of(out)) as add:
                for number in sorted(rows):
                    add(inputs[number].atoms, rows[number])


def _relaxations(
    inputs: Sequence[Input], calculator: "FastCHGNet", options: dict[str, Any], devices: Any
) -> Iterator[tuple[int, "Outcome"]]:
    """(number, outcome) as structures are done; a single one shows its steps."""
    from ase_fastchgnet.progress import progress
    from ase_fastchgnet.workflows.relaxation import RelaxationError, relax
    from ase_fastchgnet.workflows.relaxation_many import relax_as_completed

    structures = [one.atoms for one in inputs]
    with warnings_name([one.name for one in inputs]):
        if len(inputs) == 1:
            try:
                yield 0, relax(structures[0], calculator, **options)
            except (ValueError, RelaxationError) as error:
                yield 0, error
            return
        with progress("relax", len(inputs)) as meter:
            outcomes = relax_as_completed(structures, calculator, devices=devices, **options)
            for n, (number, outcome) in enumerate(outcomes, start=1):
                yield number, outcome
                meter.update(n, inputs[number].name)


def _settle(
    number: int, one: Input, outcome: "Outcome", put: Put, report: Report, *, wants_convergence: bool
) -> dict[int, Row]:
    """Writes and counts one outcome; its row by number, if it has one."""
    if isinstance(outcome, Exception):
        report.failed(one.name, outcome)
        put(number, None, {})
        return {}
    atoms = outcome.structure
    volume = one.atoms.cell.volume
    row = row_of(one.name, atoms) | {
        "converged": outcome.converged,
        "n_steps": outcome.n_steps,
        "fmax_eV_A": outcome.fmax,
        "volume_change_percent": 100 * (atoms.cell.volume / volume - 1) if volume else None,
    }
    put(number, atoms, row)
    if wants_convergence and not outcome.converged:
        report.failed(one.name, f"not converged after {outcome.n_steps} steps (written all the same); raise --steps")
    else:
        report.done()
    return {number: row}
