"""A changing set of moving structures, evaluated together; each one's neighbours are carried along."""

from collections.abc import Mapping

import torch
from ase import Atoms

from ase_fastchgnet.graph import AnyCache, GraphBatch, neighbor_cache

from .backend import Backend
from .evaluator import StructureTooLargeError, batches, evaluate_batch, graph_too_large
from .isolated import IsolatedGuard, IsolatedPolicy
from .prediction import Prediction

Failure = ValueError | StructureTooLargeError  # of one structure; the others are none the worse for it


class MovingBatch:
    """Evaluates structures that come back, moved a little, under the same number.

    Same results as `evaluate`, but a structure's neighbours are searched again only when its atoms have moved half of
    `skin` (Å).  Errors and warnings call a structure by its number.
    """

    def __init__(self, backend: Backend, *, skin: float, on_isolated_atoms: IsolatedPolicy) -> None:
        self.backend = backend
        self._skin = skin
        self._policy = on_isolated_atoms
        self._known: dict[int, tuple[AnyCache, IsolatedGuard]] = {}
        self._rows: dict[int, int] = {}

    @torch.inference_mode(False)  # as in evaluate
    def evaluate(self, structures: Mapping[int, Atoms]) -> dict[int, Prediction | Failure]:
        """Everything for every structure, in order; in the place of one that cannot be evaluated, what is wrong."""
        graphs: dict[int, GraphBatch] = {}
        found: dict[int, Prediction | Failure] = {}
        for number, atoms in structures.items():
            try:
                graphs[number] = self._graph(number, atoms)
            except ValueError as error:
                found[number] = error
            except MemoryError as error:
                found[number] = graph_too_large(error, atoms, self.backend, self._skin)
        predictions = [p for batch in batches(iter(graphs.values())) for p in evaluate_batch(batch, self.backend, True)]
        found.update(zip(graphs, predictions, strict=True))
        return {number: found[number] for number in structures}

    def rows(self, number: int) -> int | None:
        """Edges + angles of a structure when it was last evaluated, the measure of its cost; None before."""
        return self._rows.get(number)

    def forget(self, number: int) -> None:
        """Let go of what is kept for a structure."""
        self._known.pop(number, None)
        self._rows.pop(number, None)

    def _graph(self, number: int, atoms: Atoms) -> GraphBatch:
        if number not in self._known:
            cutoffs, device = self.backend.cutoffs, self.backend.device
            cache = neighbor_cache(cutoffs, self._skin, device=device, among_others=atoms)
            self._known[number] = cache, IsolatedGuard(self._policy, cutoffs.atom)
        cache, guard = self._known[number]
        graph = cache.graph(atoms, number)
        guard.check(graph, number)
        self._rows[number] = graph.n_edges + graph.n_angles
        return graph
