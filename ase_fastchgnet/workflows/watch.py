"""An eye on molecular dynamics: a run that blows up is stopped, and the last good step kept."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.md.md import MolecularDynamics

MAX_RATIO = 4.0  # a cell whose volume has grown or shrunk by more is no solid or liquid any more


class DynamicsError(RuntimeError):
    """A run that blew up; `frame` is the last step that was good, with its velocities."""

    def __init__(self, message: str, frame: Atoms) -> None:
        super().__init__(message)
        self.frame = frame


def watched(dynamics: MolecularDynamics, steps: int, *, limit: float, volume: float) -> Iterator[float]:
    """Yields the temperature (K) at the start and after each step; DynamicsError once the run has blown up."""
    if dynamics.nsteps > steps:
        raise ValueError(f"steps={steps}, but the run to resume is at step {dynamics.nsteps} already")
    atoms = dynamics.atoms
    good: _State | None = None
    walk = dynamics.irun(steps - dynamics.nsteps)
    while True:
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # seen below, and said in words
                next(walk)
        except StopIteration:
            return
        except ValueError as error:
            if good is None:
                raise  # bad input, and not what became of it
            raise DynamicsError(f"the run blew up after step {good.step}: {error}", good.put_on(atoms)) from error
        energy, kelvin = atoms.get_potential_energy(), float(atoms.get_temperature())
        ratio = atoms.cell.volume / volume if volume else 1.0
        if not (np.isfinite(energy) and kelvin <= limit and 1 / MAX_RATIO < ratio < MAX_RATIO):
            state = (
                f"at step {dynamics.nsteps} the temperature is {kelvin:.6g} K (limit {limit:g} K), the potential "
                f"energy {energy:.6g} eV, the volume {ratio:.3g} times that at the start"
            )
            if good is None:
                raise ValueError(f"the run cannot start: {state}")
            raise DynamicsError(
                f"the run blew up: {state}; relax the structure first, choose a shorter timestep, or raise "
                "max_temperature if this is meant",
                good.put_on(atoms),
            )
        good = _State(dynamics.nsteps, atoms.get_positions(), atoms.get_momenta(), atoms.cell.array.copy())
        yield kelvin


class _State(NamedTuple):
    """A step to go back to; cheaper than a copy of the Atoms."""

    step: int
    positions: np.ndarray
    momenta: np.ndarray
    cell: np.ndarray

    def put_on(self, atoms: Atoms) -> Atoms:
        """A copy of `atoms` as they were at this step."""
        frame: Atoms = atoms.copy()
        frame.info = {"step": self.step}
        frame.set_cell(self.cell)
        frame.set_positions(self.positions, apply_constraint=False)
        frame.set_momenta(self.momenta, apply_constraint=False)
        return frame
