"""list[Atoms] → list[Prediction]: stateless, in order, in batches of bounded size."""

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence

import torch
from ase import Atoms

from ase_fastchgnet.graph import GraphBatch, concatenate, neighbor_cache

from .backend import Backend, load_backend
from .isolated import IsolatedGuard, IsolatedPolicy, check_isolated_policy
from .memory import what_fits
from .prediction import Prediction, predictions_of
from .source import Forces, ModelSource

_log = logging.getLogger(__name__)

PROPERTIES = ("energy", "forces", "stress", "magmoms")
BATCH_ROWS = 20_000  # edges + angles in one batch: some 50 MB on a CPU, where larger batches are no faster


REMEDY = "use a smaller cell, float32, or a device with more memory"


class StructureTooLargeError(MemoryError):
    """A structure does not fit into the memory of the device on its own."""


@torch.inference_mode(False)  # the reference backend differentiates with autograd, which that mode forbids
def evaluate(
    structures: Iterable[Atoms],
    model: ModelSource = "0.3.0",
    *,
    properties: Collection[str] = PROPERTIES,
    device: str | None = None,
    dtype: str = "float32",
    forces: Forces = "conservative",
    backend: str = "auto",
    tf32: bool = False,
    on_isolated_atoms: IsolatedPolicy = "warn",
    batch_size: int | None = None,
) -> list[Prediction]:
    """Predictions for all structures, in order; nothing is remembered but the loaded weights.

    `model` is a released name, a path or a Checkpoint.  Energies and magnetic moments come from the forward pass, so
    they are always there; forces and stress come together, if `properties` names either: as exact derivatives, or with
    `forces="direct"` as the readout predicts them.  `tf32` is that of `FastCHGNet`.  A batch holds consecutive
    structures, as many as keep memory bounded and at most `batch_size`; its make-up does not change the results beyond
    rounding.  A structure that cannot be evaluated raises an error that starts with "system" and its index: ValueError,
    or StructureTooLargeError (a MemoryError).  A batch that does not fit into memory is halved.
    """
    _check_arguments(structures, properties, batch_size)
    check_isolated_policy(on_isolated_atoms)
    loaded = load_backend(model, dtype=dtype, device=device, forces=forces, backend=backend, tf32=tf32)
    gradient = not {"forces", "stress"}.isdisjoint(properties)
    graphs = _graphs(structures, loaded, on_isolated_atoms)
    predictions: list[Prediction] = []
    for batch in batches(graphs, batch_size):
        for found in evaluate_batch(batch, loaded, gradient):
            if isinstance(found, StructureTooLargeError):
                raise StructureTooLargeError(f"system {len(predictions)}: {found}")
            predictions.append(found)
    return predictions


def evaluate_batch(
    graphs: Sequence[GraphBatch], backend: Backend, gradient: bool
) -> list[Prediction | StructureTooLargeError]:
    """Predictions for these graphs, evaluated at once, or in halves where memory is too small for all of them.

    In the place of a graph that does not fit on its own, what is wrong.
    """
    try:
        graph = concatenate(graphs, backend.device)
        return [*predictions_of(graph, backend.evaluate(graph) if gradient else backend.forward(graph).output)]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    if len(graphs) == 1:
        return [too_large(graphs[0], backend)]
    _log.info("%d structures do not fit into memory together: two batches", len(graphs))
    half = len(graphs) // 2
    return [p for part in (graphs[:half], graphs[half:]) for p in evaluate_batch(part, backend, gradient)]


def too_large(graph: GraphBatch, backend: Backend) -> StructureTooLargeError:
    """Says what of `graph` would fit."""
    return StructureTooLargeError(
        f"{graph.n_atoms} atoms, {graph.n_edges} edges and {graph.n_angles} angles do not fit into the memory of "
        f"{backend.device}{what_fits(graph, backend)}; {REMEDY}"
    )


def structure_too_large(atoms: Atoms, backend: Backend, skin: float) -> StructureTooLargeError:
    """The same of a structure that may have no graph."""
    return StructureTooLargeError(
        f"{len(atoms)} atoms do not fit into the memory of {backend.device}{what_fits(atoms, backend, skin)}; {REMEDY}"
    )


def graph_too_large(error: MemoryError, atoms: Atoms, backend: Backend, skin: float = 0.0) -> StructureTooLargeError:
    """The error of a cache that could not make the graph of `atoms`, and what would fit."""
    return StructureTooLargeError((str(error) or "not enough memory for the graph") + what_fits(atoms, backend, skin))


def is_out_of_memory(error: Exception) -> bool:
    """CUDA has a type for it; on a CPU torch raises a RuntimeError that only its text tells from others."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


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


def _graphs(structures: Iterable[Atoms], backend: Backend, policy: IsolatedPolicy) -> Iterator[GraphBatch]:
    """One graph at a time; errors and warnings name the structure."""
    for index, atoms in enumerate(structures):
        try:
            cache = neighbor_cache(backend.cutoffs, device=backend.device, among_others=atoms)
            graph = cache.graph(atoms, index)
        except MemoryError as error:
            raise graph_too_large(error, atoms, backend) from error
        IsolatedGuard(policy, backend.cutoffs.atom).check(graph, index)
        yield graph


def _check_arguments(structures: object, properties: Collection[str], batch_size: int | None) -> None:
    if isinstance(structures, Atoms):
        raise TypeError("evaluate takes several structures; for a single one pass [atoms]")
    if isinstance(properties, str) or not set(properties) <= set(PROPERTIES):
        raise ValueError(f"properties={properties!r}: expected a collection of {', '.join(map(repr, PROPERTIES))}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected 1 or more, or None to bound batches by their memory alone")
