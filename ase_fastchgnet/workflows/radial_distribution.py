"""Radial distribution functions: how much more often than by chance two atoms are found at a distance."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from vesin import NeighborList

from ase_fastchgnet.figures import BLUE, new_figure
from ase_fastchgnet.workflows.dynamics import MDRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RadialDistribution:
    """g(r) of a pair of elements, or of all atoms."""

    pair: tuple[str, str] | None  # None: all atoms
    distance: np.ndarray  # (bins,) Å, middle of each bin
    g: np.ndarray  # (bins,) 1 where atoms are found as often as by chance
    coordination: np.ndarray  # (bins,) neighbours of the second kind around the first, up to the end of each bin

    def write(self, path: str | Path) -> None:
        """Write as CSV."""
        table = np.column_stack([self.distance, self.g, self.coordination])
        np.savetxt(path, table, fmt="%.8g", delimiter=",", header="distance_A,g,coordination", comments="")

    def plot(self) -> "tuple[Figure, Axes]":
        """Figure and axes with g(r)."""
        figure, axes = new_figure(5.5)
        axes.axhline(1, color="0.8", lw=1)
        axes.plot(self.distance, self.g, color=BLUE, label="–".join(self.pair or ("all", "all")))
        axes.set(xlabel="distance (Å)", ylabel="g(r)", xlim=(0, self.distance[-1]))
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        return figure, axes


def radial_distribution(
    trajectory: MDRun[Any] | Sequence[Atoms],
    pair: tuple[str, str] | None = None,
    *,
    cutoff: float = 8.0,
    width: float = 0.05,
    skip: float = 0.0,
) -> RadialDistribution:
    """g(r), averaged over frames whose cells are periodic in three directions and may be of any size.

    trajectory  from `md`, or frames
    pair        two elements, as in ("Li", "O"); None: all atoms
    cutoff      Å, the largest distance
    width       Å, of a bin
    skip        fs at the start that are left out, by "time_fs" in `info` of the frames

    Images of atoms count like atoms: the coordination is that of the periodic crystal. Atoms placed at random in a
    cell wider than twice the cutoff have g = 1 between two elements, and 1 - 1/N among N atoms of one.
    """
    frames = trajectory.frames() if isinstance(trajectory, MDRun) else trajectory
    if skip:
        start = frames[0].info["time_fs"] + skip
        frames = [frame for frame in frames if frame.info["time_fs"] >= start]
    if not frames:
        raise ValueError("no frames are left" if skip else "there are no frames")
    edges = width * np.arange(round(cutoff / width) + 1)
    if len(edges) < 2:
        raise ValueError(f"cutoff={cutoff}, width={width}: there is not one bin")
    first, second = (_members(frames[0], pair[k] if pair else None) for k in (0, 1))
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    search = NeighborList(cutoff=float(edges[-1]), full_list=True)
    g, coordination = np.zeros(len(shells)), np.zeros(len(shells))
    for frame in frames:
        if not frame.pbc.all() or frame.cell.rank < 3:
            raise ValueError(f"g(r) needs a density, and so three periodic directions; pbc is {frame.pbc.tolist()}")
        centre, neighbour, distance = search.compute(frame.positions, frame.cell.array, True, "ijd")
        counted = first[centre] & second[neighbour]
        number = np.histogram(distance[counted], edges)[0] / first.sum()  # of neighbours, around one atom
        g += number * frame.cell.volume / (second.sum() * shells)
        coordination += np.cumsum(number)
    n = len(frames)
    return RadialDistribution(pair=pair, distance=(edges[1:] + edges[:-1]) / 2, g=g / n, coordination=coordination / n)


def _members(atoms: Atoms, element: str | None) -> np.ndarray:
    """Which atoms are of the element; all if it is None."""
    if element is None:
        return np.ones(len(atoms), bool)
    members = np.array(atoms.symbols == element)
    if not members.any():
        raise ValueError(f"there is no {element!r} among the atoms, which are {atoms.symbols}")
    return members
