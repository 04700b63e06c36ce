"""Energy drift and time of molecular dynamics with conservative forces, with direct ones, and with both (MTS).

    python -m benchmarks.mts                      writes results/mts.json, docs/figures/mts.png and a table of
                                                  docs/recipes/molecular-dynamics.md
    python -m benchmarks.mts --picoseconds 0.4    shorter than its 10 ps; writes nothing
    python -m benchmarks.mts --folder FOLDER      keeps the runs there, and goes on with those that are there
    python -m benchmarks.mts --folder FOLDER --only mts    that run and nothing else, so that each core may do one

LiMnO2, 64 atoms, constant energy, the same start for all. Drift is the slope of a straight line through the conserved
energy, which for direct forces is the kinetic energy plus the energy that the direct model predicts. Times are those
of short runs that take turns after the long ones, so that a busy moment of the machine hits all; medians over turns.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ase import Atoms
from rich.console import Console
from rich.table import Table

from ase_fastchgnet import FastCHGNet, Thermo, md
from ase_fastchgnet.figures import BLUE, GREEN, ORANGE, new_figure
from benchmarks._report import read_result, write_result
from benchmarks.report import circumstances, fill, markdown
from benchmarks.systems import SYSTEMS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "recipes" / "molecular-dynamics.md"
FIGURE = ROOT / "docs" / "figures" / "mts.png"
SYSTEM = "LiMnO2-64"
TEMPERATURE = 300.0  # K
TIMESTEP = 1.0  # fs
EQUILIBRATION = 500  # steps with a thermostat before the start
CHECKPOINT = 400  # steps
TURN, TURNS = 40, 7  # steps that are timed, and how often
LOG_INTERVAL = 20  # steps
POINTS = 250  # of each run, in the result file
MODES: dict[Literal["conservative", "direct", "mts"], tuple[str, str]] = {  # label and colour in the figure
    "conservative": ("conservative", BLUE),
    "direct": ("direct", ORANGE),
    "mts": ("MTS", GREEN),
}


def equilibrated() -> Atoms:
    """The structure at its temperature; all runs start from here."""
    run = md(
        SYSTEMS[SYSTEM](), steps=EQUILIBRATION, temperature=TEMPERATURE, timestep=TIMESTEP, thermostat_time=50, seed=1
    )
    return run.structure


class Mode:
    """The run of one kind of forces, and the time of its turns."""

    def __init__(self, folder: Path, forces: Literal["conservative", "direct", "mts"], mts_steps: int) -> None:
        self.folder, self.forces, self.mts_steps = folder / forces, forces, mts_steps
        self.calculator = FastCHGNet()
        self.ms: list[float] = []  # per step, of each turn

    def run(self, start: Atoms, steps: int) -> None:
        """The long run, in its folder; goes on with what is there."""
        self._md(start, steps, out=self.folder, resume=True, checkpoint_interval=CHECKPOINT)

    def turn(self, start: Atoms) -> None:
        """Times a few steps."""
        seen: list[tuple[int, float]] = []
        self._md(start, TURN, progress=lambda step, kelvin: seen.append((step, time.perf_counter())))
        (first, begin), (last, end) = seen[0], seen[-1]  # without the first evaluation and its search for neighbours
        self.ms.append(1000 * (end - begin) / (last - first))

    def _md(self, start: Atoms, steps: int, **options: Any) -> None:
        options = {"progress": False, "log_interval": LOG_INTERVAL, "trajectory_interval": 1000, **options}
        md(
            start, self.calculator, steps=steps, forces=self.forces, mts_steps=self.mts_steps,
            timestep=TIMESTEP, ensemble="nve", **options,
        )  # fmt: skip

    def row(self) -> dict[str, Any]:
        """What the run has shown."""
        thermo = Thermo.read(self.folder / "thermo.csv")
        n_atoms = len(SYSTEMS[SYSTEM]())
        assert thermo.conserved is not None
        energy = 1000 * (thermo.conserved - thermo.conserved[0]) / n_atoms
        picoseconds = thermo.time / 1000
        slope, offset = np.polyfit(picoseconds, energy, 1)
        halves = [np.polyfit(t, e, 1)[0] for t, e in zip(halved(picoseconds), halved(energy), strict=True)]
        every = max(1, len(energy) // POINTS)
        return {
            "system": SYSTEM,
            "forces": self.forces,
            "mts_steps": self.mts_steps if self.forces == "mts" else None,
            "timestep_fs": TIMESTEP,
            "picoseconds": float(picoseconds[-1]),
            "drift_mev_per_atom_ps": float(slope),
            "drift_of_halves": [float(half) for half in halves],
            "swing_mev_per_atom": float(np.std(energy - slope * picoseconds - offset)),
            "temperature_k": float(thermo.after(thermo.time[-1] / 2).temperature.mean()),
            "ms_per_step": statistics.median(self.ms),
            "turns_ms_per_step": [round(ms, 3) for ms in self.ms],
            "time_ps": picoseconds[::every].round(4).tolist(),
            "conserved_mev_per_atom": energy[::every].round(5).tolist(),
        }


def halved(values: np.ndarray) -> list[np.ndarray]:
    """The first half and the second."""
    return np.array_split(values, 2)


def run(folder: Path, names: Sequence[Any], steps: int, mts_steps: int, console: Console) -> list[Mode]:
    """The modes of these names, run to `steps`, then timed."""
    start = equilibrated()  # the same to the last bit each time, as resumed runs need it
    modes = [Mode(folder, forces, mts_steps) for forces in names]
    for mode in modes:
        mode.run(start, steps)
        console.print(f"{mode.forces}: {steps} steps")
    for _ in range(TURNS):
        for mode in modes:
            mode.turn(start)
    return modes


def gains(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Times faster than conservative forces, the median over turns."""
    base = rows[0]["turns_ms_per_step"]
    return [statistics.median(a / b for a, b in zip(base, row["turns_ms_per_step"], strict=True)) for row in rows]


def cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The table, without its head."""
    return [
        [
            MODES[row["forces"]][0] + (f", {row['mts_steps']} steps" if row["mts_steps"] else ""),
            f"{row['drift_mev_per_atom_ps']:+.4f}",
            f"{row['swing_mev_per_atom']:.3f}",
            f"{row['ms_per_step'] / row['timestep_fs']:.1f}",
            f"{gain:.2f}×",
        ]
        for row, gain in zip(rows, gains(rows), strict=True)
    ]


HEADER = ("forces", "drift, meV/atom/ps", "swing, meV/atom", "ms per fs", "speed")


def plot(rows: Sequence[Mapping[str, Any]]) -> None:
    """The conserved energy of each run against time, in two panels: the second without direct forces alone."""
    figure, axes = new_figure(7.4, 3.2, ncols=2)
    for ax, left_out in zip(axes, (None, "direct"), strict=True):
        for row in rows:
            label, color = MODES[row["forces"]]
            if row["forces"] != left_out:
                ax.plot(row["time_ps"], row["conserved_mev_per_atom"], color=color, lw=1, label=label)
        ax.axhline(0, color="black", lw=0.5)
        ax.set(xlabel="time (ps)", ylabel="conserved energy (meV/atom)")
        ax.margins(x=0)
        ax.legend(frameon=False, fontsize=9)
    figure.savefig(FIGURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Multiple time stepping: drift and time.")
    parser.add_argument("--picoseconds", type=float, default=10.0, help="length of each run")
    parser.add_argument("--mts-steps", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="for the runs; temporary if not given")
    parser.add_argument("--only", choices=list(MODES), help="this run alone; writes nothing but its folder")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console()
    steps = round(1000 * options.picoseconds / TIMESTEP / options.mts_steps) * options.mts_steps
    with tempfile.TemporaryDirectory() as temporary:
        names = [options.only] if options.only else list(MODES)
        modes = run(options.folder or Path(temporary), names, steps, options.mts_steps, console)
        rows = [mode.row() for mode in modes]
    table = Table(*HEADER)
    for line in cells(rows):
        table.add_row(*line)
    console.print(table)
    if not options.only and options.picoseconds == parser.get_default("picoseconds"):
        path = write_result("mts", rows)
        plot(rows)
        result = read_result("mts")
        assert result is not None
        text = markdown(HEADER, cells(rows)) + f"\n\n{circumstances(result)}"
        PAGE.write_text(fill(PAGE.read_text(), {"mts": text}))
        console.print(f"written: {path}, {FIGURE}, {PAGE}")


if __name__ == "__main__":
    main()
