"""Where atoms have gone in a trajectory, across the faces of the cell."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

from ase_fastchgnet.workflows.dynamics import MDRun


def frames_of(trajectory: MDRun[Any] | Sequence[Atoms]) -> Sequence[Atoms]:
    """The frames, two at least and all of the same atoms."""
    frames = trajectory.frames() if isinstance(trajectory, MDRun) else trajectory
    if len(frames) < 2:
        raise ValueError(f"a trajectory of {len(frames)} frame(s); two at least are needed")
    numbers = frames[0].numbers
    for index, frame in enumerate(frames):
        if not np.array_equal(frame.numbers, numbers):
            raise ValueError(f"frame {index} has other atoms, or in another order, than the first frame")
    return frames


def times_of(frames: Sequence[Atoms], interval: float | None) -> np.ndarray:
    """The time of each frame, fs, at equal distances; `interval` (fs) where frames do not say."""
    if interval is not None:
        return interval * np.arange(len(frames))
    if any("time_fs" not in frame.info for frame in frames):
        raise ValueError("the frames do not say when they are (no 'time_fs' in info): pass interval, fs between frames")
    time = np.array([float(frame.info["time_fs"]) for frame in frames])
    steps = np.diff(time)
    if not (steps > 0).all() or np.ptp(steps) > 1e-6 * steps[0]:
        raise ValueError(f"frames are {steps.min():g} to {steps.max():g} fs apart; equal intervals are needed")
    return time


def unwrapped_positions(frames: Sequence[Atoms], wrapped: bool | None) -> np.ndarray:
    """Positions (frames, atoms, 3), Å, that never jump across the cell, relative to the centre of mass of the frame.

    `wrapped`: whether atoms that leave the cell have been put back on its other side.  None: no, and ValueError if it
    looks so.  Not relative to the centre of mass where constraints hold atoms; if the cell changes, fractional
    coordinates in the mean cell.
    """
    cells = np.array([frame.cell.array for frame in frames])
    positions = np.array([frame.positions for frame in frames])
    pbc = frames[0].pbc
    if wrapped is not False and pbc.any():
        lattice = np.array([frame.cell.complete().array for frame in frames])
        fractional = np.linalg.solve(lattice.transpose(0, 2, 1)[:, None], positions[..., None])[..., 0]
        jumps = np.rint(np.diff(fractional, axis=0)) * pbc
        if wrapped is None and jumps.any():
            frame, atom, _ = np.argwhere(jumps)[0]
            raise ValueError(
                f"atom {atom} moves by more than half a cell between frames {frame} and {frame + 1}: pass wrapped=True "
                "if it was put back on the other side of the cell, wrapped=False if it really moved"
            )
        fractional[1:] -= np.cumsum(jumps, axis=0)
        positions = fractional @ lattice
    if np.ptp(cells, axis=0).any():
        inverse = np.linalg.inv(cells)
        positions = positions @ inverse @ cells.mean(axis=0)
    if not frames[0].constraints:
        masses = frames[0].get_masses()
        positions = positions - np.einsum("a,fac->fc", masses, positions)[:, None] / masses.sum()
    return positions
