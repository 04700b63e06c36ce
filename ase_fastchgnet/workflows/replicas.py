"""md_replicas: molecular dynamics of one structure at several temperatures, side by side."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

from ase.calculators.calculator import Calculator

from ase_fastchgnet.calculator import FastCHGNet
from ase_fastchgnet.progress import Meter
from ase_fastchgnet.progress import progress as progress_of
from ase_fastchgnet.workflows.dynamics import MDOptions, MDRun, Pace, md
from ase_fastchgnet.workflows.lockstep import Program, run_in_lockstep
from ase_fastchgnet.workflows.structures import StructureT
from ase_fastchgnet.workflows.watch import DynamicsError


def md_replicas(
    structure: StructureT,
    temperatures: Sequence[float],
    calculator: FastCHGNet | None = None,
    *,
    steps: int,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool | None = None,
    **options: Unpack[MDOptions],
) -> list[MDRun[StructureT] | DynamicsError]:
    """What `md` gives at each of `temperatures` (K), in order; in the place of a run that blew up, its error.

    The runs go on side by side, all calculations of a step in one batch, and differ from those of `md` by rounding.
    Each has a folder in `out` named after its temperature, as in "300K", and a seed of its own: `seed`, `seed` + 1, …
    """
    if len({folder_of(temperature) for temperature in temperatures}) < len(temperatures):
        raise ValueError(f"temperatures={list(temperatures)}: each may appear once, as it names a folder")
    chgnet = calculator or FastCHGNet()

    def program(number: int, tell: Callable[[int, float], None]) -> Program[MDRun[StructureT]]:
        def run(lockstep: Calculator) -> MDRun[StructureT]:
            lockstep.parameters.update(chgnet.todict())  # for checkpoints and trajectories: whose numbers these are
            folder = None if out is None else Path(out) / folder_of(temperatures[number])
            options_here = {**options, "temperature": temperatures[number], "seed": seed + number, "out": folder}
            return md(structure, lockstep, steps=steps, progress=tell, **options_here)  # type: ignore[arg-type]

        return run

    done: dict[int, Any] = {}
    with progress_of(f"MD at {len(temperatures)} temperatures", steps, progress) as meter:
        board = _Board(meter, len(temperatures), Pace(options.get("timestep", 1.0)))
        programs = ((number, program(number, board.teller(number))) for number in range(len(temperatures)))
        for number, outcome in run_in_lockstep(programs, chgnet):
            if isinstance(outcome, Exception) and not isinstance(outcome, DynamicsError):
                raise outcome
            done[number] = outcome
            board.leave(number)
    return [done[number] for number in range(len(temperatures))]


def folder_of(temperature: float) -> str:
    """The name of a replica's folder."""
    return f"{temperature:g}K"


class _Board:
    """Where all replicas are, on one meter: it shows the slowest."""

    def __init__(self, meter: Meter, replicas: int, pace: Pace) -> None:
        self._meter, self._pace = meter, pace
        self._steps = dict.fromkeys(range(replicas), 0)
        self._kelvin: dict[int, float] = {}

    def teller(self, number: int) -> Callable[[int, float], None]:
        """What replica `number` calls with its step and temperature."""

        def tell(step: int, kelvin: float) -> None:
            self._kelvin[number] = kelvin
            slowest = min(self._steps.values())
            self._steps[number] = step
            if min(self._steps.values()) > slowest:
                self._show()

        return tell

    def leave(self, number: int) -> None:
        """Replica `number` has ended."""
        self._kelvin.pop(number, None)
        if self._steps.pop(number) and self._steps:
            self._show()

    def _show(self) -> None:
        step = min(self._steps.values())
        kelvin = " ".join(f"{self._kelvin[number]:.0f}" for number in sorted(self._kelvin))
        self._meter.update(step, f"{kelvin} K  {self._pace.at(step)} each")
