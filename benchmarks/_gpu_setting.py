"""What the parts of the GPU benchmark share: where they run, on what, and how they read a clock."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms

from ase_fastchgnet.evaluation import captured
from benchmarks.systems import crystal

CRYSTALS = ("LiMnO2", "Si", "MgO")
CELL_ATOMS = 8  # of the conventional cell of each of them
FULL_REPEATS = (1, 2, 4, 5, 11, 24)  # 8 to 110,592 atoms
QUICK_REPEATS = (1, 2)
WARM_UP = captured.PATIENCE + 2  # evaluations, after which what can be recorded is
DISPLACED = 0.005  # Å, atoms from one evaluation to the next: no neighbour is searched for

Row = dict[str, Any]


class Setting(NamedTuple):
    """Where to measure, and how thoroughly."""

    device: torch.device
    quick: bool
    systems: tuple[str, ...] = ()  # instead of those that a part measures

    @property
    def rounds(self) -> int:
        return 3 if self.quick else 9

    @property
    def sample_seconds(self) -> float:
        """Of a sample of MD steps."""
        return 0.05 if self.quick else 0.5

    def names(self, *full: str) -> tuple[str, ...]:
        """The systems of a part that would measure `full`."""
        quick = tuple(f"{name}-{CELL_ATOMS * n**3}" for name in CRYSTALS[:2] for n in QUICK_REPEATS)
        return self.systems or (tuple(name for name in full if name in quick) if self.quick else full)

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def milliseconds(self, run: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
        """Median time of `run` until the device is done; `before` comes first and is not timed."""
        samples = []
        for turn in range(WARM_UP + self.rounds):
            before()
            self.wait()
            start = time.perf_counter()
            run()
            self.wait()
            if turn >= WARM_UP:
                samples.append(1e3 * (time.perf_counter() - start))
        return statistics.median(samples)

    def peak_bytes(self, run: Callable[[], object]) -> int | None:
        """By how much the memory of the device that tensors hold grew at most while `run` ran; None on a CPU."""
        gc.collect()
        if self.device.type != "cuda":
            run()
            return None
        self.wait()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        run()
        self.wait()
        return torch.cuda.max_memory_allocated(self.device) - before


def series(*crystals: str) -> tuple[str, ...]:
    """Names of these crystals in all sizes, the smallest first."""
    return tuple(f"{name}-{CELL_ATOMS * n**3}" for n in FULL_REPEATS for name in crystals)


def structure(name: str) -> Atoms:
    """`LiMnO2-512`: the crystal of so many atoms."""
    return crystal(name.rpartition("-")[0], repeats_of(name))


def repeats_of(name: str) -> int:
    """How often the cell of a named system is repeated along each axis."""
    kind, _, atoms = name.rpartition("-")
    repeat = round((int(atoms) / CELL_ATOMS) ** (1 / 3)) if atoms.isdecimal() else 0
    if kind not in CRYSTALS or not repeat or CELL_ATOMS * repeat**3 != int(atoms):
        raise SystemExit(
            f"unknown system {name!r}: expected {', '.join(CRYSTALS)} and 8n³ atoms, as in {CRYSTALS[0]}-512"
        )
    return repeat


@contextmanager
def capture(on: bool) -> Iterator[None]:
    """Steps are recorded as they are shipped to be, or not at all."""
    shipped = captured.LARGEST
    captured.LARGEST = shipped if on else 0
    try:
        yield
    finally:
        captured.LARGEST = shipped


def trembling(atoms: Atoms) -> Callable[[], None]:
    """Moves the atoms a little around where they are now, at each call."""
    random, start = np.random.default_rng(0), atoms.positions.copy()

    def move() -> None:
        atoms.positions = start + random.normal(scale=DISPLACED, size=start.shape)

    return move
