"""NVE dynamics of a calculator whose steps are timed in samples, and how two of them compare."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

WARM_UP = 2  # steps


@dataclass
class Trajectory:
    """NVE dynamics of one calculator, and the time of its steps."""

    dynamics: VelocityVerlet
    first_call: float  # s: making the calculator and the first energy and forces, libraries imported
    steps_per_sample: int
    samples: list[float] = field(default_factory=list)  # s per step

    def sample(self) -> None:
        gc.collect()
        start = time.perf_counter()
        self.dynamics.run(self.steps_per_sample)
        self.samples.append((time.perf_counter() - start) / self.steps_per_sample)

    @property
    def median_ms(self) -> float:
        return 1e3 * statistics.median(self.samples)

    @property
    def min_ms(self) -> float:
        return 1e3 * min(self.samples)


def begin(
    atoms: Atoms, make: Callable[[], Calculator], seconds: float, *, everything: bool = False, warm_up: int = WARM_UP
) -> Trajectory:
    """Start at 300 K, warm up, and choose how many steps fill a sample of `seconds`."""
    atoms = atoms.copy()
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(1))
    start = time.perf_counter()
    atoms.calc = make()
    atoms.get_forces()
    first_call = time.perf_counter() - start
    dynamics = VelocityVerlet(atoms, timestep=1 * units.fs)
    if everything:
        dynamics.attach(lambda: (atoms.get_stress(), atoms.get_magnetic_moments()))
    dynamics.run(warm_up)
    start = time.perf_counter()
    dynamics.run(1)
    once = time.perf_counter() - start
    return Trajectory(dynamics, first_call, max(1, round(seconds / once)))


def ratio(slow: Trajectory, fast: Trajectory) -> float:
    """Median of the ratios of samples taken one after the other."""
    return statistics.median(s / f for s, f in zip(slow.samples, fast.samples, strict=True))
