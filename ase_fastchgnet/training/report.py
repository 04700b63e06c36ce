"""Pictures of a run: how errors fell, and labels against predictions, before and after."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_fastchgnet.figures import BLUE, GREY, ORANGE, new_figure
from ase_fastchgnet.training.errors import Errors, Pairs, Parity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What is drawn of the history: name of the error, title, factor to the unit of the title
CURVES = (
    ("loss", "loss", 1.0),
    ("force_mae_eV_A", "force error, meV/Å", 1e3),
    ("energy_mae_eV_per_atom", "energy error, meV/atom", 1e3),
    ("stress_mae_GPa", "stress error, GPa", 1.0),
    ("magmom_mae_muB", "moment error, μB", 1.0),
)
PARITY = (  # field of Parity and of Errors, title, unit, error's factor and unit
    ("energy", "energy", "eV/atom", 1e3, "meV/atom"),
    ("forces", "force", "eV/Å", 1e3, "meV/Å"),
    ("stress", "stress", "GPa", 1.0, "GPa"),
    ("magmoms", "moment", "μB", 1.0, "μB"),
)
MOST_POINTS = 5000  # of one panel; of more, every n-th is drawn


def plot_curves(history: Sequence[Mapping[str, float | None]]) -> "tuple[Figure, Any]":
    """Errors of training and validation against epochs."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        """Labels the same ticks, with numbers as they are written."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    shown = [curve for curve in CURVES if any(row.get(f"train_{curve[0]}") is not None for row in history)]
    figure, axes = new_figure(3.2 * len(shown), 2.8, ncols=len(shown), squeeze=False)
    for ax, (name, title, factor) in zip(axes[0], shown, strict=True):
        for part, color in (("train", GREY), ("validation", BLUE)):
            points = [(row["epoch"], row[f"{part}_{name}"]) for row in history if row.get(f"{part}_{name}") is not None]
            if points:
                x, y = np.array(points, dtype=float).T
                ax.plot(x, factor * y, color=color, label=part, marker="." if len(x) < 20 else "")
        ax.set(title=title, xlabel="epoch", yscale="log")
        ax.yaxis.set_major_formatter(Plain())
        ax.yaxis.set_minor_formatter(Plain())
    axes[0][0].legend(frameon=False)
    return figure, axes[0]


def plot_parity(before: tuple[Errors, Parity], after: tuple[Errors, Parity]) -> "tuple[Figure, Any]":
    """Predictions against labels, before (orange) and after (blue); mean absolute errors in the corners."""
    shown = [row for row in PARITY if getattr(after[1], row[0]).shape[1]]
    figure, axes = new_figure(3.2 * len(shown), 3.3, ncols=len(shown), squeeze=False)
    for ax, (name, title, unit, factor, small) in zip(axes[0], shown, strict=True):
        for (errors, parity), color, when, height in ((before, ORANGE, "before", 0.88), (after, BLUE, "after", 0.96)):
            labels, predicted = _thinned(getattr(parity, name))
            ax.plot(labels, predicted, ".", color=color, markersize=3, alpha=0.5, rasterized=True)
            text = f"{when} {factor * getattr(errors, name):.3g} {small}"
            ax.text(0.03, height, text, color=color, transform=ax.transAxes, va="top")
        both = np.concatenate([getattr(before[1], name), getattr(after[1], name)], axis=1)
        ends = [both.min(), both.max()]
        ax.plot(ends, ends, color=GREY, linewidth=0.8, zorder=0)
        ax.set(title=title, xlabel=f"label, {unit}", ylabel=f"predicted, {unit}")
    return figure, axes[0]


def _thinned(pairs: Pairs) -> Pairs:
    return pairs[:, :: max(1, -(-pairs.shape[1] // MOST_POINTS))]
