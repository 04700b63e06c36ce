"""How long a training step takes: a model of the batch's size, fitted to steps that were measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StepCost:
    """seconds = step + atom · atoms + edge · edges + angle · angles."""

    step: float  # of any batch: launches, optimiser
    atom: float
    edge: float
    angle: float

    def seconds(self, sizes: ArrayLike) -> float:
        """Predicted time of a step over structures of these sizes (structures, 3): atoms, edges, angles."""
        return self.step + float(self.of_structures(sizes).sum())

    def of_structures(self, sizes: ArrayLike) -> Floats:
        """What each structure (structures, 3) adds to the time of the step that it is in, s."""
        each: Floats = np.asarray(sizes, dtype=np.float64).reshape(-1, 3) @ [self.atom, self.edge, self.angle]
        return each


# Conservative steps on one core of a server, float32 (python -m benchmarks.balance).  Only ratios decide who gets what.
TYPICAL = StepCost(step=9e-2, atom=3e-4, edge=4.5e-5, angle=8e-5)


def fit(sizes: ArrayLike, seconds: Sequence[float]) -> StepCost:
    """The model that is least wrong, relative to each measured step; no term is negative.

    sizes (steps, 3): atoms, edges and angles of each step's batch.  Steps should differ in their mix, not only in size.
    """
    totals = np.asarray(sizes, dtype=np.float64)
    rows = np.column_stack([np.ones(len(totals)), totals]) / np.asarray(seconds)[:, None]
    scale = rows.max(axis=0, initial=1e-300)  # columns of like size keep the solver's tolerance out of the result
    coefficients, _ = nnls(rows / scale, np.ones(len(rows)))
    return StepCost(*(coefficients / scale).tolist())
