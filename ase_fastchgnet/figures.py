"""How figures begin: no pyplot, no global state."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0077bb", "#ee7733", "#009988", "#cc3311", "#aa3377", "#999999"


def new_figure(width: float = 6.4, height: float = 4.0, **subplots: Any) -> "tuple[Figure, Any]":
    """An empty figure (inches) and its axes, one or as many as `subplots` asks `Figure.subplots` for.

    ImportError says how to get matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'ase-fastchgnet[plot]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(**subplots)
    for ax in np.ravel(axes):
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes
