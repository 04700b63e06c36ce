"""`fastchgnet md`: molecular dynamics, at one temperature or at several side by side."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .inputs import read_structure
from .options import Device, Dtype, File, Model, Overwrite, Tf32, make_calculator, out_option
from .outputs import atomic
from .report import complain, warnings_name

if TYPE_CHECKING:
    from ase import Atoms

    from ase_fastchgnet.calculator import FastCHGNet
    from ase_fastchgnet.workflows.dynamics import MDRun
    from ase_fastchgnet.workflows.transport import Diffusion
    from ase_fastchgnet.workflows.watch import DynamicsError

Ensembles = Literal[
    "nve",
    "nvt-bussi",
    "nvt-langevin",
    "nvt-langevin-baoab",
    "nvt-nose-hoover",
    "nvt-berendsen",
    "npt-mtk",
    "npt-mtk-isotropic",
    "npt-berendsen",
    "npt-berendsen-isotropic",
]
Forces = Literal["conservative", "direct", "mts"]
_FORCES = "conservative; direct: cheap; mts: direct, corrected every few steps."
_BATH = "Thermostat and barostat"
_OUTPUT = "Output"
_ANALYSIS = "Analysis"


def md(
    file: File,
    temperature: Annotated[
        list[float] | None,
        typer.Option(
            "--temperature",
            "-t",
            metavar="K",
            help="Of thermostat and velocities; give several for runs side by side.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", min=0, help="Of the whole run, resumed or not.")] = 1000,
    timestep: Annotated[
        float, typer.Option(metavar="FS", min=1e-3, help="2 does for most solids; 0.5 to 1 with hydrogen.")
    ] = 1.0,
    ensemble: Annotated[
        Ensembles, typer.Option("--ensemble", "-e", metavar="NAME", help="One of those above.")
    ] = "nvt-bussi",
    pressure: Annotated[float, typer.Option(metavar="GPA", help="Of npt ensembles.")] = 0.0,
    repeat: Annotated[str, typer.Option(metavar="AxBxC", help="Supercell to start from.")] = "1x1x1",
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of velocities and thermostat.")] = 0,
    forces: Annotated[Forces, typer.Option(metavar="KIND", help=_FORCES)] = "conservative",
    mts_steps: Annotated[int, typer.Option(metavar="N", min=1, help="Of mts, between corrections.")] = 4,
    thermostat_time: Annotated[float, typer.Option(metavar="FS", help="Time constant.", rich_help_panel=_BATH)] = 100.0,
    barostat_time: Annotated[float, typer.Option(metavar="FS", help="Time constant.", rich_help_panel=_BATH)] = 1000.0,
    bulk_modulus: Annotated[
        float | None, typer.Option(metavar="GPA", help="For Berendsen's barostat.", rich_help_panel=_BATH)
    ] = None,
    initial_temperature: Annotated[
        float | None,
        typer.Option(
            metavar="K",
            help="Of the first velocities; else as the structure has them, or drawn.",
            rich_help_panel=_BATH,
        ),
    ] = None,
    max_temperature: Annotated[
        float | None,
        typer.Option(
            metavar="K", help="Beyond it the run has blown up; else ten times that asked for.", rich_help_panel=_BATH
        ),
    ] = None,
    out: Annotated[Path, out_option("A folder (md if not given); several temperatures have one each in it.")] = Path(
        "md"
    ),
    trajectory: Annotated[
        Literal["extxyz", "traj"],
        typer.Option(metavar="extxyz|traj", help="Format; traj is exact.", rich_help_panel=_OUTPUT),
    ] = "extxyz",
    trajectory_interval: Annotated[
        int, typer.Option(metavar="N", min=1, help="Steps between frames.", rich_help_panel=_OUTPUT)
    ] = 10,
    log_interval: Annotated[
        int, typer.Option(metavar="N", min=1, help="Steps between lines of thermo.csv.", rich_help_panel=_OUTPUT)
    ] = 10,
    checkpoint_interval: Annotated[
        int, typer.Option(metavar="N", min=1, help="Steps between checkpoints.", rich_help_panel=_OUTPUT)
    ] = 100,
    plot: Annotated[
        bool, typer.Option("--plot", metavar="", help="Draw thermo.png, msd.png, …", rich_help_panel=_OUTPUT)
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Go on where --out was left.", rich_help_panel=_OUTPUT)
    ] = False,
    overwrite: Overwrite = False,
    diffusion: Annotated[
        str | None,
        typer.Option(
            metavar="ELEMENT", help="Its diffusion coefficient.", show_default=False, rich_help_panel=_ANALYSIS
        ),
    ] = None,
    skip: Annotated[
        float, typer.Option(metavar="FS", min=0, help="Left out at the start.", rich_help_panel=_ANALYSIS)
    ] = 0.0,
    model: Model = "0.3.0",
    device: Device = None,
    dtype: Dtype = "float32",
    tf32: Tf32 = False,
) -> None:
    """Molecular dynamics, with checkpoints to resume from.

    Examples:
      fastchgnet md POSCAR -t 300 --steps 5000 --out md/
      fastchgnet md POSCAR -t 300 --steps 9000 --out md/ --resume
      fastchgnet md cell.cif -t 900 -e npt-mtk --pressure 1 --repeat 2x2x2
      fastchgnet md POSCAR -t 300 --steps 20000 --forces mts
      fastchgnet md cell.cif -t 800 -t 1000 -t 1200 --diffusion Li --skip 2000

    Ensembles: nve, nvt-bussi, nvt-langevin, nvt-langevin-baoab, nvt-nose-hoover, nvt-berendsen, npt-mtk,
    npt-mtk-isotropic, npt-berendsen (angles fixed), npt-berendsen-isotropic.

    The folder gets the trajectory, thermo.csv (temperature, energies, pressure), checkpoint.npz and final.extxyz. A run
    that was interrupted goes on with the same command and --resume, and becomes what it would have been. Runs at
    several temperatures share their evaluations, and those left at different steps become so up to rounding. A run that
    blows up stops, and its last good step is in last_good.extxyz.
    """
    if plot:
        _require_matplotlib()
    if forces == "mts" and len(temperature or []) > 1:
        raise typer.BadParameter("mts is for one temperature at a time", param_hint="'--forces'")
    atoms = read_structure(file).repeat(_repeats(repeat))
    if diffusion is not None and diffusion not in atoms.symbols:
        raise typer.BadParameter(f"there is no {diffusion!r} in {atoms.symbols}", param_hint="'--diffusion'")
    if diffusion is not None:
        _require_frames((steps - skip / timestep) / trajectory_interval)
    calculator = make_calculator(model, device, dtype, tf32=tf32)
    options = {
        "steps": steps,
        "ensemble": ensemble,
        "timestep": timestep,
        "pressure": pressure,
        "thermostat_time": thermostat_time,
        "barostat_time": barostat_time,
        "bulk_modulus": bulk_modulus,
        "initial_temperature": initial_temperature,
        "max_temperature": max_temperature,
        "seed": seed,
        "out": out,
        "trajectory_format": trajectory,
        "trajectory_interval": trajectory_interval,
        "log_interval": log_interval,
        "checkpoint_interval": checkpoint_interval,
        "resume": resume,
        "overwrite": overwrite,
    }
    try:
        with warnings_name([file]):
            outcomes = _run(atoms, calculator, temperature or [], {"forces": forces, "mts_steps": mts_steps}, options)
    except KeyboardInterrupt:
        complain(f"stopped; the same command with --resume goes on from the last checkpoint in {out}")
        raise
    runs = {folder: outcome for folder, outcome in outcomes.items() if not isinstance(outcome, Exception)}
    failures: dict[Path, Exception] = {
        folder: outcome for folder, outcome in outcomes.items() if isinstance(outcome, Exception)
    }
    for folder, run in runs.items():
        print(f"{folder}: {run}\n" if len(outcomes) > 1 else run)
        if plot:
            _save(run.thermo, folder / "thermo.png")
    if diffusion is not None:
        failures |= _analyse(runs, out, diffusion, skip, plot)
    complain(f"written: {', '.join(map(str, outcomes))}")
    for folder, error in failures.items():
        complain(f"error: {folder}: {error}")
    if failures:
        raise typer.Exit(1)


def _run(
    atoms: "Atoms",
    calculator: "FastCHGNet",
    temperatures: Sequence[float],
    motion: dict[str, Any],
    options: dict[str, Any],
) -> "dict[Path, MDRun[Atoms] | DynamicsError]":
    """Runs, or the errors that ended them, by their folders."""
    from ase_fastchgnet.workflows.dynamics import md
    from ase_fastchgnet.workflows.multiple_timesteps import with_forces
    from ase_fastchgnet.workflows.replicas import folder_of, md_replicas
    from ase_fastchgnet.workflows.watch import DynamicsError

    out: Path = options["out"]
    try:
        if len(temperatures) > 1:
            runs = md_replicas(atoms, temperatures, with_forces(calculator, motion["forces"]), **options)
            return {out / folder_of(kelvin): run for kelvin, run in zip(temperatures, runs, strict=True)}
        return {out: md(atoms, calculator, temperature=next(iter(temperatures), None), **motion, **options)}
    except DynamicsError as error:
        return {out: error}
    except FileExistsError as error:
        raise typer.BadParameter(f"{error} (--resume, --overwrite)", param_hint="'--out'") from error


def _require_frames(intervals: float) -> None:
    """Before the work whose trajectory would be too short: `intervals` of it are left after --skip."""
    from ase_fastchgnet.workflows.transport import BLOCKS, LEAST_FRAMES

    frames, needed = max(0, int(intervals) + 1), BLOCKS * LEAST_FRAMES
    if frames < needed:
        raise typer.BadParameter(
            f"it needs {needed} frames, and after --skip there will be {frames}: more --steps, or a smaller "
            "--trajectory-interval",
            param_hint="'--diffusion'",
        )


def _analyse(
    runs: "Mapping[Path, MDRun[Atoms]]", out: Path, element: str, skip: float, plot: bool
) -> dict[Path, Exception]:
    """Prints and writes how an element diffuses in each run, and how that depends on temperature.

    Returns what could not be analysed.
    """
    from ase_fastchgnet.workflows.transport import diffusion

    found: dict[float, Diffusion] = {}
    failures: dict[Path, Exception] = {}
    for folder, run in runs.items():
        try:
            result = diffusion(run, element, skip=skip)
        except ValueError as error:
            failures[folder] = error
            continue
        print(f"{folder}: {result}")
        result.write(folder / f"msd_{element}.csv")
        if plot:
            _save(result, folder / f"msd_{element}.png")
        found[float(run.thermo.after(skip).temperature.mean())] = result
    if len(found) > 1:
        try:
            _arrhenius(out, element, found, plot)
        except ValueError as error:  # nothing diffuses at one of the temperatures
            failures[out] = error
    return failures


def _arrhenius(out: Path, element: str, found: "Mapping[float, Diffusion]", plot: bool) -> None:
    """Prints and writes how the coefficients depend on temperature."""
    from ase_fastchgnet.workflows.transport import arrhenius

    with atomic(out / f"diffusion_{element}.csv") as unfinished, open(unfinished, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["temperature_K", "diffusion_cm2_s", "error_cm2_s", "exponent"])
        table.writerows([kelvin, d.coefficient, d.error, d.exponent] for kelvin, d in found.items())
    law = arrhenius(list(found), [d.coefficient for d in found.values()], [d.error for d in found.values()])
    print(law)
    if plot:
        _save(law, out / f"arrhenius_{element}.png")


def _save(plottable: Any, path: Path) -> None:
    figure, _ = plottable.plot()
    with atomic(path) as unfinished:
        figure.savefig(unfinished, dpi=150)


def _require_matplotlib() -> None:
    """Before hours of work whose pictures could not be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("--plot needs matplotlib: pip install 'ase-fastchgnet[plot]'") from error


def _repeats(text: str) -> tuple[int, int, int]:
    try:
        a, b, c = map(int, text.split("x"))
        if min(a, b, c) >= 1:
            return a, b, c
    except ValueError:
        pass
    raise typer.BadParameter(f"{text!r}: give three numbers such as 2x2x1", param_hint="'--repeat'")
