"""How long an evaluation takes: a model of its size, fitted to what was measured on the machine."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.optimize import nnls

from ase_fastchgnet.graph.size import Size

T = TypeVar("T")
CHUNK_SECONDS = 0.5  # short, so that all workers end at about the same time; long enough to fill a batch
CHUNK_STRUCTURES = 200


@dataclass(frozen=True, slots=True)
class CostModel:
    """seconds = structure · structures + atom · atoms + edge · edges + angle · angles."""

    structure: float
    atom: float
    edge: float
    angle: float

    def seconds(self, size: Size) -> float:
        """Predicted time of structures of this size."""
        return float(np.dot(size, (self.structure, self.atom, self.edge, self.angle)))


# Energy, forces and stress on one core of a server, float32 (python -m benchmarks.screening).
TYPICAL = CostModel(structure=2e-3, atom=0.0, edge=8e-6, angle=8e-6)


def fit(sizes: Sequence[Size], seconds: Sequence[float]) -> CostModel:
    """The model that is least wrong, relative to each measurement; no term is negative."""
    weights = 1 / np.asarray(seconds)
    coefficients, _ = nnls(np.asarray(sizes, dtype=float) * weights[:, None], np.ones(len(weights)))
    return CostModel(*coefficients.tolist())


class Learning:
    """A cost model that gets better while work goes on: fitted to the last measurements again and again."""

    ENOUGH = 8  # measurements; before, TYPICAL has to do
    KEPT = 200

    def __init__(self) -> None:
        self.model = TYPICAL
        self._measured: deque[tuple[Size, float]] = deque(maxlen=self.KEPT)

    def measured(self, size: Size, seconds: float) -> None:
        """Structures of this size took so long."""
        self._measured.append((size, seconds))
        if len(self._measured) >= self.ENOUGH:
            self.model = fit(*zip(*self._measured, strict=True))


def chunks(
    items: Iterable[T], cost_of: Callable[[T], float], *, most: float = CHUNK_SECONDS, among: int = 1
) -> Iterator[list[T]]:
    """Consecutive items that cost at most `most` together, as far as is known, or one that costs more.

    Of few items, chunks are shorter, so that there are as many as are wanted `among` workers.
    """
    costs = ((item, cost_of(item)) for item in items)
    first = list(itertools.islice(costs, CHUNK_STRUCTURES))
    few = len(first) < CHUNK_STRUCTURES
    limit = min(most, sum(cost for _, cost in first) / among) if few else most
    chunk: list[T] = []
    total = 0.0
    for item, cost in itertools.chain(first, costs):
        if chunk and (total + cost > limit * (1 + 1e-9) or len(chunk) == CHUNK_STRUCTURES):
            yield chunk
            chunk, total = [], 0.0
        chunk.append(item)
        total += cost
    if chunk:
        yield chunk
