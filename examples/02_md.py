"""How to run molecular dynamics at constant temperature, watch it, keep it, and judge how well energy is conserved.

LiMnO2, 64 atoms, a Nosé-Hoover chain at 300 K. Potential + kinetic energy is not constant in such a run: heat flows
from and to the thermostat. What must stay constant is their sum with the thermostat's energy, so its drift is stated.
"""

import argparse
import csv
import time
from pathlib import Path

import matplotlib
import numpy as np
from ase import Atoms, units
from ase.io import read, write
from ase.md.nose_hoover_chain import NoseHooverChainNVT
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ase_fastchgnet import FastCHGNet

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TEMPERATURE = 300  # K
TIMESTEP = 2  # fs
SETTLING = 100  # fs, not counted in the drift: a hot start oscillates
LOG_EVERY = 2  # steps
SAVE_EVERY = 10  # steps
COLUMNS = ["time_fs", "temperature_K", "potential_eV", "kinetic_eV", "conserved_eV"]
COLUMNS += ["magmom_Mn", "magmom_Mn_min", "magmom_Mn_max", "magmom_O", "magmom_O_min", "magmom_O_max"]


def observe(atoms: Atoms, dynamics: NoseHooverChainNVT) -> list[float]:
    """One row of the log, in the order of COLUMNS; moments (μ_B): mean, least and largest of an element."""
    potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
    row = [dynamics.nsteps * TIMESTEP, atoms.get_temperature(), potential, kinetic, dynamics.get_conserved_energy()]
    for element in ("Mn", "O"):
        magmoms = atoms.get_magnetic_moments()[atoms.symbols == element]
        row += [magmoms.mean(), magmoms.min(), magmoms.max()]
    return row


def run(atoms: Atoms, steps: int, out: Path) -> tuple[np.ndarray, float]:
    """Log (rows, COLUMNS) and steps per second; writes the trajectory as it goes."""
    # Within some 50 fs half of the kinetic energy becomes potential energy of the crystal: start with twice as much.
    thermalize_momenta(atoms, temperature_K=2 * TEMPERATURE, rng=np.random.default_rng(1))
    Stationary(atoms)
    dynamics = NoseHooverChainNVT(atoms, TIMESTEP * units.fs, temperature_K=TEMPERATURE, tdamp=50 * units.fs)
    console = Console()
    progress = Progress(
        TextColumn("MD"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps  {task.fields[speed]:.1f} steps/s  left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    rows = []
    with progress:
        task = progress.add_task("", total=steps, speed=0.0)
        start = time.perf_counter()
        for _ in dynamics.irun(steps):
            step = dynamics.nsteps
            if step % LOG_EVERY == 0:
                rows.append(observe(atoms, dynamics))
            if step % SAVE_EVERY == 0:
                write(out / "trajectory.extxyz", atoms, append=step > 0)
            speed = step / (time.perf_counter() - start)
            progress.update(task, completed=step, speed=speed)
            if not console.is_terminal and step % max(1, steps // 10) == 0:
                print(f"step {step:5}/{steps}  {rows[-1][1]:5.0f} K  {speed:.1f} steps/s", flush=True)
    return np.array(rows), speed


def conservation(log: np.ndarray, n_atoms: int) -> tuple[float, float]:
    """Slope of the conserved energy, meV/atom/ps, and rms distance from that line, meV/atom; after SETTLING."""
    late = log[log[:, 0] >= SETTLING] if log[-1, 0] > 2 * SETTLING else log
    time_ps, energy = late[:, 0] / 1000, 1000 * late[:, 4] / n_atoms
    line = np.polynomial.Polynomial.fit(time_ps, energy, 1)
    return float(line.deriv()(0.0)), float(np.std(energy - line(time_ps)))


def plot(log: np.ndarray, n_atoms: int, path: Path) -> None:
    """Temperature, energies and magnetic moments against time."""
    t = log[:, 0] / 1000
    potential, kinetic, conserved = (1000 * log[:, column] / n_atoms for column in (2, 3, 4))
    figure, (top, middle, bottom) = plt.subplots(3, sharex=True, figsize=(7, 7.5), layout="constrained")
    top.plot(t, log[:, 1], color="#cc3311")
    top.axhline(TEMPERATURE, color="0.5", lw=1, ls="--", label=f"thermostat, {TEMPERATURE} K")
    top.set(ylabel="temperature (K)")
    for energy, color, label in (
        (potential, "#0077bb", "potential"),
        (potential + kinetic, "#ee7733", "potential + kinetic"),
        (conserved, "black", "potential + kinetic + thermostat (conserved)"),
    ):
        middle.plot(t, energy - potential[0], color=color, label=label)
    middle.set(ylabel="energy above the crystal's\n(meV/atom)")
    for column, color, label in ((5, "#aa3377", "Mn"), (8, "#009988", "O")):
        bottom.plot(t, log[:, column], color=color, label=f"{label}, mean and range")
        bottom.fill_between(t, log[:, column + 1], log[:, column + 2], color=color, alpha=0.25, lw=0)
    bottom.set(ylabel="|magnetic moment| (μ$_B$)", xlabel="time (ps)", xlim=(0, t[-1] or None), ylim=(0, 4.9))
    for axes, place in ((top, "upper right"), (middle, "lower right"), (bottom, "center right")):
        axes.legend(frameon=False, loc=place, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"LiMnO$_2$ at {TEMPERATURE} K, {n_atoms} atoms, CHGNet 0.3.0")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--steps", type=int, default=500)
    parser.add_argument("-o", "--out", type=Path, default=Path("demo_out"), help="folder for the results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    crystal = read(Path(__file__).parent / "structures" / "LiMnO2.cif")
    atoms = Atoms(crystal.symbols, positions=crystal.positions, cell=crystal.cell, pbc=True).repeat(2)
    atoms.calc = FastCHGNet()
    log, speed = run(atoms, options.steps, options.out)

    with open(options.out / "md.csv", "w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *log.tolist()])
    plot(log, len(atoms), options.out / "md.png")
    drift, scatter = conservation(log, len(atoms))
    print(f"{options.steps} steps of {TIMESTEP} fs, {len(atoms)} atoms: {speed:.1f} steps/s")
    print(f"conserved energy: drift {drift:+.3f} meV/atom/ps, scatter {scatter:.3f} meV/atom")
    print(f"written to {options.out}: trajectory.extxyz, md.csv, md.png")


if __name__ == "__main__":
    main()

# Expected output, besides the progress:
# 500 steps of 2 fs, 64 atoms: … steps/s
# conserved energy: drift +0.012 meV/atom/ps, scatter 0.028 meV/atom
# written to demo_out: trajectory.extxyz, md.csv, md.png
