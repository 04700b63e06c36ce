"""md: molecular dynamics that is written down, watched, and can be continued to the last bit."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypedDict

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.md.velocitydistribution import Stationary, thermalize_momenta

from ase_fastchgnet.progress import progress as progress_of
from ase_fastchgnet.workflows.ensembles import ENSEMBLES, Settings
from ase_fastchgnet.workflows.multiple_timesteps import Forces, InnerSteps, calculators
from ase_fastchgnet.workflows.recorder import FINAL, LAST_GOOD, Output, Recorder
from ase_fastchgnet.workflows.restart import identity, name_of
from ase_fastchgnet.workflows.structures import StructureT, as_atoms, as_given
from ase_fastchgnet.workflows.thermo import Thermo
from ase_fastchgnet.workflows.watch import DynamicsError, watched

Progress = bool | Callable[[int, float], None] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MDRun(Generic[StructureT]):
    """Molecular dynamics from its first step to its last."""

    structure: StructureT  # the last step, of the kind that was given; Atoms carry velocities and results
    thermo: Thermo  # temperature, energies, pressure, volume against time
    n_steps: int  # from the start of the run, interrupted or not
    timestep: float  # fs
    trajectory: Path | None  # the file with the frames; None if there is none
    kept: list[Atoms]  # the frames, if there is no file

    def __str__(self) -> str:
        """A summary; averages and standard deviations are of the second half of the run."""
        final = as_atoms(self.structure)
        late = self.thermo.after(self.thermo.time[-1] / 2)
        picoseconds = self.n_steps * self.timestep / 1000
        lines = [f"{final.get_chemical_formula()}: {self.n_steps} steps of {self.timestep:g} fs, {picoseconds:g} ps"]
        for name, values, unit in (
            ("temperature", late.temperature, "K"),
            ("potential energy", late.potential / len(final), "eV/atom"),
            ("pressure", late.pressure, "GPa"),
            ("volume", None if late.volume is None else late.volume / len(final), "Å³/atom"),
        ):
            if values is not None:
                digits = 0 if unit == "K" else 3
                lines.append(f"{name:17}{values.mean():.{digits}f} ± {values.std():.{digits}f} {unit}")
        if late.conserved is not None and len(late.time) > 1:
            lines.append(f"{'drift':17}{1000 * late.drift() / len(final):+.3f} meV/atom/ps, of the conserved energy")
        return "\n".join(lines)

    def frames(self) -> list[Atoms]:
        """The trajectory, read from its file if there is one; `info` of each frame has its "step" and "time_fs"."""
        return list(self.kept) if self.trajectory is None else read_frames(self.trajectory)


class MDOptions(TypedDict, total=False):
    """The options that `md` and `md_replicas` share; `md` says what they mean."""

    ensemble: str
    timestep: float
    pressure: float
    thermostat_time: float
    barostat_time: float
    bulk_modulus: float | None
    initial_temperature: float | None
    max_temperature: float | None
    trajectory_format: Literal["extxyz", "traj"]
    trajectory_interval: int
    log_interval: int
    checkpoint_interval: int
    resume: bool
    overwrite: bool


def md(
    structure: StructureT,
    calculator: Calculator | None = None,
    *,
    steps: int,
    ensemble: str = "nvt-bussi",
    temperature: float | None = None,
    pressure: float = 0.0,
    timestep: float = 1.0,
    thermostat_time: float = 100.0,
    barostat_time: float = 1000.0,
    bulk_modulus: float | None = None,
    initial_temperature: float | None = None,
    max_temperature: float | None = None,
    seed: int = 0,
    forces: Forces | None = None,
    mts_steps: int = 4,
    inner_calculator: Calculator | None = None,
    out: str | Path | None = None,
    trajectory_format: Literal["extxyz", "traj"] = "extxyz",
    trajectory_interval: int = 10,
    log_interval: int = 10,
    checkpoint_interval: int = 100,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = None,
) -> MDRun[StructureT]:
    """Molecular dynamics of `structure` (ase.Atoms or pymatgen Structure), which is not changed.

    calculator           any ASE calculator; None: FastCHGNet()
    steps                of the whole run, those before an interruption included
    ensemble             "nve", "nvt-bussi", "nvt-langevin", "nvt-langevin-baoab", "nvt-nose-hoover", "nvt-berendsen",
                         "npt-mtk", "npt-mtk-isotropic", "npt-berendsen" (angles fixed), "npt-berendsen-isotropic"
    temperature          K, of the thermostat; of the initial velocities in "nve"
    pressure             GPa
    timestep             fs; 2 does for most solids, 0.5 to 1 with hydrogen
    thermostat_time      fs, time constant of the thermostat; Langevin's friction is its inverse
    barostat_time        fs, time constant of the barostat
    bulk_modulus         GPa, for Berendsen's barostat only
    initial_temperature  K, of velocities drawn from the Maxwell-Boltzmann distribution, scaled to this temperature
                         and, unless atoms are held by constraints, to zero total momentum.  None: the velocities of
                         the structure if it has any that are not zero, else drawn at `temperature`
    max_temperature      K, beyond which the run has blown up; None: ten times the temperature asked for, 3000 at least
    seed                 of velocities and thermostat
    forces               "conservative" or "direct": FastCHGNet's forces of this kind; "mts": direct ones at every step
                         and, every `mts_steps` steps, what these lack (multiple time stepping), which is the dynamics
                         of the conservative forces for less.  None: those of `calculator` as they are
    mts_steps            steps from one evaluation of `calculator` to the next; `steps` is a multiple of it, and
                         intervals are rounded up to multiples of it
    inner_calculator     what gives "mts" its cheap forces; None: `calculator` with direct forces
    out                  folder for trajectory, thermo.csv, checkpoint.npz and final.extxyz; None: all stays in memory
    trajectory_format    "extxyz" (eight decimals) or "traj" (ASE's own, numbers as they are)
    *_interval           steps from one frame, line or checkpoint to the next
    resume               go on from the checkpoint in `out`, if there is one: with the same arguments (`steps` may be
                         larger) the files and the result are what they would be without the interruption, to the last
                         bit if the calculator gives the same numbers for the same geometry, as FastCHGNet on a CPU does
    overwrite            replace what an earlier run left in `out`
    progress             draw a bar; None: on a terminal; or a function that is told step and temperature instead

    DynamicsError if the run blows up: temperature, energy or volume beyond all bounds, or a geometry that cannot be
    evaluated.  It carries the last good step, which is also written to last_good.extxyz.
    """
    settings = Settings(
        ensemble=ensemble,
        temperature=temperature,
        pressure=pressure,
        timestep=timestep,
        thermostat_time=thermostat_time,
        barostat_time=barostat_time,
        bulk_modulus=bulk_modulus,
        initial_temperature=initial_temperature,
        seed=seed,
    )
    output = Output(
        folder=None if out is None else Path(out),
        trajectory_format=trajectory_format,
        trajectory_interval=trajectory_interval,
        log_interval=log_interval,
        checkpoint_interval=checkpoint_interval,
        resume=resume,
        overwrite=overwrite,
    )
    hottest = max(temperature or 0, initial_temperature or 0, 300)
    limit = 10 * hottest if max_temperature is None else max_temperature
    calculator, inner = calculators(calculator, forces, mts_steps, inner_calculator)
    if inner:
        inner.check(steps)
        output = output.rounded(inner.whole)
    if callable(progress):
        return _run(structure, calculator, inner, settings, output, steps=steps, limit=limit, tell=progress)
    with progress_of("MD", steps, progress) as meter:
        pace = Pace(timestep)

        def tell(step: int, kelvin: float) -> None:
            meter.update(step, f"{kelvin:.0f} K  {pace.at(step)}")

        return _run(structure, calculator, inner, settings, output, steps=steps, limit=limit, tell=tell)


class Pace:
    """How fast a run goes on, since it is watched."""

    def __init__(self, timestep: float) -> None:
        self._timestep = timestep
        self._since: tuple[int, float] | None = None

    def at(self, step: int) -> str:
        """Steps per second and ns per day, to be shown at `step`."""
        now = time.monotonic()
        first, start = self._since = self._since or (step, now)
        rate = (step - first) / (now - start) if now > start else 0.0
        return f"{rate:.1f} steps/s  {rate * self._timestep * 86400e-6:.2f} ns/day"


def _run(
    structure: StructureT,
    calculator: Calculator,
    inner: InnerSteps | None,
    settings: Settings,
    output: Output,
    *,
    steps: int,
    limit: float,
    tell: Callable[[int, float], None],
) -> MDRun[StructureT]:
    atoms = _start(structure)
    rng = np.random.default_rng(settings.seed)
    ensemble = ENSEMBLES[settings.ensemble]
    run = identity(atoms, calculator, asdict(settings) | output.rhythm())
    if inner:
        ensemble = inner.of(ensemble, settings.ensemble)
        run |= {"mts_steps": inner.number, "inner_calculator": name_of(inner.calculator)}
    checkpoint = output.prepare(run)
    volume = atoms.cell.volume
    atoms.calc = calculator
    if checkpoint:
        checkpoint.restore_atoms(atoms, rng)
    else:
        _set_velocities(atoms, settings, rng)
    dynamics = ensemble.build(atoms, settings, rng)
    if checkpoint:
        checkpoint.restore_dynamics(dynamics, ensemble.state)
    recorder = Recorder(dynamics, ensemble, output, rng, settings.timestep, run, checkpoint)
    try:
        for kelvin in watched(dynamics, steps, limit=limit, volume=volume):
            recorder.record(end=dynamics.nsteps == steps)
            tell(dynamics.nsteps, kelvin)
    except DynamicsError as error:
        recorder.write(LAST_GOOD, error.frame)
        raise
    finally:
        recorder.close()
    final = recorder.frame()
    recorder.write(FINAL, final)
    return MDRun(
        structure=as_given(final, structure),
        thermo=recorder.thermo(),
        n_steps=dynamics.nsteps,
        timestep=settings.timestep,
        trajectory=output.trajectory(),
        kept=recorder.frames,
    )


def _start(structure: Any) -> Atoms:
    """A copy of the structure that can move."""
    atoms = as_atoms(structure)
    if len(atoms) < 2:
        raise ValueError("molecular dynamics needs two atoms at least; repeat the cell, as in structure.repeat(3)")
    for leftover in ("spacegroup", "unit_cell", "occupancy"):  # of a CIF, and not true of atoms that move
        atoms.info.pop(leftover, None)
    atoms.arrays.pop("spacegroup_kinds", None)
    return atoms


def _set_velocities(atoms: Atoms, settings: Settings, rng: np.random.Generator) -> None:
    kelvin = settings.initial_temperature
    if kelvin is None:
        if atoms.has("momenta") and atoms.get_momenta().any():
            return
        kelvin = settings.temperature
    if kelvin is None:
        raise ValueError("the atoms are at rest: give a temperature (K) for their velocities, or set their velocities")
    if kelvin == 0:
        atoms.set_momenta(np.zeros((len(atoms), 3)))
        return
    thermalize_momenta(atoms, kelvin, exact_temperature=True, rng=rng)
    if not atoms.constraints:
        Stationary(atoms)


def read_frames(path: str | Path) -> list[Atoms]:
    """All frames of a trajectory."""
    return list(ase.io.iread(str(path), index=":"))
