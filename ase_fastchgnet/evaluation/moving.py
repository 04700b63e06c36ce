"""A changing set of moving structures, evaluated together; each one's neighbours are carried along."""

from collections.abc import Hashable, Mapping

import torch
from ase import Atoms

from ase_fastchgnet.graph import GraphBatch, NeighborCache

from .backend import Backend
from .evaluator import batches, evaluate_batch
from .isolated import IsolatedGuard, IsolatedPolicy
from .prediction import Prediction


class MovingBatch:
    """Evaluates structures that come back, moved a little, under the same key.

    Same results as `evaluate`, but a structure's neighbours are searched again only when its atoms have moved half of
    `skin` (Å).
    """

    def __init__(self, backend: Backend, *, skin: float, on_isolated_atoms: IsolatedPolicy) -> None:
        self.backend = backend
        self._skin = skin
        self._policy = on_isolated_atoms
        self._known: dict[Hashable, tuple[NeighborCache, IsolatedGuard]] = {}

    @torch.inference_mode(False)  # as in evaluate
    def evaluate(self, structures: Mapping[Hashable, Atoms]) -> dict[Hashable, Prediction | ValueError]:
        """Everything for every structure, in order; in the place of one that cannot be evaluated, what is wrong."""
        graphs: dict[Hashable, GraphBatch] = {}
        found: dict[Hashable, Prediction | ValueError] = {}
        for key, atoms in structures.items():
            try:
                graphs[key] = self._graph(key, atoms)
            except ValueError as error:
                found[key] = error
        predictions = (p for batch in batches(iter(graphs.values())) for p in evaluate_batch(batch, self.backend, True))
        found.update(zip(graphs, predictions, strict=True))
        return {key: found[key] for key in structures}

    def forget(self, key: Hashable) -> None:
        """Let go of the neighbours kept for `key`."""
        self._known.pop(key, None)

    def _graph(self, key: Hashable, atoms: Atoms) -> GraphBatch:
        if key not in self._known:
            cutoffs = self.backend.cutoffs
            self._known[key] = NeighborCache(cutoffs, self._skin), IsolatedGuard(self._policy, cutoffs.atom)
        cache, guard = self._known[key]
        graph = cache.graph(atoms)
        guard.check(graph)
        return graph
