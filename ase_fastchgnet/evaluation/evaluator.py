"""list[Atoms] → list[Prediction]: stateless, in order, in batches of bounded size."""

from collections.abc import Collection, Iterable, Iterator

import torch
from ase import Atoms

from ase_fastchgnet.graph import Cutoffs, GraphBatch, NeighborCache, concatenate

from .backend import Backend, load_backend
from .isolated import IsolatedGuard, IsolatedPolicy, check_isolated_policy
from .prediction import Prediction, predictions_of
from .source import ModelSource

PROPERTIES = ("energy", "forces", "stress", "magmoms")
BATCH_ROWS = 20_000  # edges + angles in one batch: some 50 MB on a CPU, where larger batches are no faster


@torch.inference_mode(False)  # the reference backend differentiates with autograd, which that mode forbids
def evaluate(
    structures: Iterable[Atoms],
    model: ModelSource = "0.3.0",
    *,
    properties: Collection[str] = PROPERTIES,
    device: str | None = None,
    dtype: str = "float32",
    backend: str = "auto",
    on_isolated_atoms: IsolatedPolicy = "warn",
    batch_size: int | None = None,
) -> list[Prediction]:
    """Predictions for all structures, in order; nothing is remembered but the loaded weights.

    `model` is a released name, a path or a Checkpoint.  Energies and magnetic moments come from the forward pass, so
    they are always there; forces and stress come together, if `properties` names either.  A batch holds consecutive
    structures, as many as keep memory bounded and at most `batch_size`; its make-up does not change the results beyond
    rounding.  A structure that cannot be evaluated raises an error that starts with "system" and its index.
    """
    _check_arguments(structures, properties, batch_size)
    check_isolated_policy(on_isolated_atoms)
    loaded = load_backend(model, dtype=dtype, device=device, backend=backend)
    gradient = not {"forces", "stress"}.isdisjoint(properties)
    graphs = _graphs(structures, loaded.cutoffs, on_isolated_atoms)
    return [p for batch in batches(graphs, batch_size) for p in evaluate_batch(batch, loaded, gradient)]


def evaluate_batch(graphs: list[GraphBatch], backend: Backend, gradient: bool) -> list[Prediction]:
    """Predictions for these graphs, evaluated at once."""
    graph = concatenate(graphs).to(backend.device)
    return predictions_of(graph, backend.evaluate(graph) if gradient else backend.forward(graph).output)


def batches(graphs: Iterator[GraphBatch], batch_size: int | None = None) -> Iterator[list[GraphBatch]]:
    """Consecutive graphs in lists of at most BATCH_ROWS rows, or of one graph that is larger."""
    batch: list[GraphBatch] = []
    rows = 0
    for graph in graphs:
        size = graph.n_edges + graph.n_angles
        if batch and (rows + size > BATCH_ROWS or len(batch) == batch_size):
            yield batch
            batch, rows = [], 0
        batch.append(graph)
        rows += size
    if batch:
        yield batch


def _graphs(structures: Iterable[Atoms], cutoffs: Cutoffs, policy: IsolatedPolicy) -> Iterator[GraphBatch]:
    """One graph at a time; errors and warnings name the structure."""
    for index, atoms in enumerate(structures):
        graph = NeighborCache(cutoffs).graph(atoms, index)
        IsolatedGuard(policy, cutoffs.atom).check(graph, index)
        yield graph


def _check_arguments(structures: object, properties: Collection[str], batch_size: int | None) -> None:
    if isinstance(structures, Atoms):
        raise TypeError("evaluate takes several structures; for a single one pass [atoms]")
    if isinstance(properties, str) or not set(properties) <= set(PROPERTIES):
        raise ValueError(f"properties={properties!r}: expected a collection of {', '.join(map(repr, PROPERTIES))}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected 1 or more, or None to bound batches by their memory alone")
