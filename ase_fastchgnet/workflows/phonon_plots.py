"""Figures of phonons: bands, densities of states, thermal properties."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ase.units import kB, kJ, mol

from ase_fastchgnet.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, new_figure
from ase_fastchgnet.workflows.phonon_spectrum import IMAGINARY, Band, Dos, Thermal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)  # of elements, in turn
_NOTE: Mapping[str, Any] = {"color": RED, "fontsize": 9}
DULONG_PETIT = 3000 * kB * mol / kJ  # J/K per mole of atoms


def plot_bands(bands: Sequence[Band]) -> "tuple[Figure, Axes]":
    """Frequencies along the path, imaginary ones below zero on a red ground."""
    figure, axes = new_figure()
    for band in bands:
        axes.plot(band.distances, band.frequencies, color=BLUE, lw=1.2)
        axes.axvline(band.distances[-1], color="0.8", lw=0.8, zorder=0)
    ticks = _ticks(bands)
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set(xlim=(0, bands[-1].distances[-1]), ylabel="frequency (THz)")
    lowest = min(band.frequencies.min() for band in bands)
    highest = max(band.frequencies.max() for band in bands)
    axes.set_ylim(top=1.03 * highest)
    if lowest < -IMAGINARY:
        _mark_imaginary(axes, 1.15 * lowest)
    else:
        axes.set_ylim(bottom=0)
    return figure, axes


def plot_dos(dos: Dos) -> "tuple[Figure, Axes]":
    """The total as a grey area, each element as a line."""
    figure, axes = new_figure()
    axes.fill_between(dos.frequencies, dos.total, color="0.85", label="total", lw=0)
    if len(dos.elements) > 1:
        for (symbol, share), color in zip(dos.elements.items(), itertools.cycle(COLORS), strict=False):
            axes.plot(dos.frequencies, share, color=color, lw=1.2, label=symbol)
        axes.legend(frameon=False)
    axes.set(xlabel="frequency (THz)", ylabel="states per THz and primitive cell")
    axes.set(xlim=(dos.frequencies[0], dos.frequencies[-1]), ylim=(0, None))
    if dos.frequencies[0] < 0:
        axes.axvspan(dos.frequencies[0], 0, color=RED, alpha=0.08, lw=0)
        axes.annotate("imaginary", (0, 1), xycoords=("data", "axes fraction"), ha="right", va="top", **_NOTE)
    return figure, axes


def plot_thermal(thermal: Thermal, imaginary_share: float) -> "tuple[Figure, Axes]":
    """Heat capacity and entropy on the left axis, free energy on the right."""
    figure, axes = new_figure()
    axes.axhline(DULONG_PETIT, color="0.6", lw=0.8, ls=":")
    axes.annotate("3R", (0.01, DULONG_PETIT), xycoords=("axes fraction", "data"), va="bottom", color="0.4")
    axes.plot(thermal.temperatures, thermal.heat_capacity, color=BLUE, label="heat capacity")
    axes.plot(thermal.temperatures, thermal.entropy, color=ORANGE, label="entropy")
    right = axes.twinx()
    right.plot(thermal.temperatures, 1000 * thermal.free_energy, color=GREEN, ls="--")
    axes.plot([], [], color=GREEN, ls="--", label="free energy")
    right.set_ylabel("free energy (meV/atom)", color=GREEN)
    right.spines["top"].set_visible(False)
    axes.set(xlabel="temperature (K)", ylabel="J/K per mole of atoms", ylim=(0, None))
    axes.set_xlim(thermal.temperatures[0], thermal.temperatures[-1])
    axes.legend(frameon=False, loc="lower center")
    if imaginary_share:
        axes.set_title(f"without the {100 * imaginary_share:.1f} % of modes that are imaginary", color=RED, fontsize=10)
    return figure, axes


def _ticks(bands: Sequence[Band]) -> dict[float, str]:
    """Labels by distance; two of them where the path jumps."""
    ticks = {0.0: bands[0].start}
    for band, following in itertools.pairwise([*bands, bands[-1]]):
        jumps = band is not following and band.end != following.start
        ticks[float(band.distances[-1])] = f"{band.end}|{following.start}" if jumps else band.end
    return ticks


def _mark_imaginary(axes: "Axes", bottom: float) -> None:
    axes.axhspan(bottom, 0, color=RED, alpha=0.08, lw=0)
    axes.axhline(0, color="0.4", lw=0.8)
    axes.set_ylim(bottom=bottom)
    axes.annotate("imaginary", (0.01, bottom), xycoords=("axes fraction", "data"), va="bottom", **_NOTE)
