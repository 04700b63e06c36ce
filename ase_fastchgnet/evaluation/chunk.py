"""The task of a worker: a chunk of structures in, their predictions and what was noticed out."""

import functools
import os
import socket
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from ase import Atoms

from ase_fastchgnet.graph import GraphBatch, neighbor_cache
from ase_fastchgnet.model.checkpoint import Checkpoint, is_released

from .backend import Backend, check_options, load_backend, resolve_device
from .evaluator import batches, evaluate_batch, graph_too_large
from .isolated import IsolatedGuard, IsolatedPolicy
from .prediction import Prediction
from .source import Forces, load_weights, portable_name


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A structure and its number in the whole."""

    index: int
    atoms: Atoms


class Options(NamedTuple):
    """What decides the predictions besides the structures."""

    model: str | Checkpoint
    dtype: str
    device: str | None
    forces: Forces
    backend: str
    tf32: bool
    on_isolated_atoms: IsolatedPolicy
    gradient: bool  # forces and stress too

    def describe(self) -> str:
        """Whose numbers these are, for a file of results."""
        checkpoint = load_weights(self.model, self.forces)
        kind = ", energies only" if not self.gradient else ", direct forces" if self.forces == "direct" else ""
        name = checkpoint.name if is_released(checkpoint.name) else f"{checkpoint.name} {checkpoint.sha256[:12]}"
        return f"{name}, {'tf32' if self.tf32 else self.dtype}{kind}"

    def for_workers(self, devices: object) -> "Options":
        """The same for processes on `devices`: the model by its name or path, the device the one that each has.

        PicklingError if the model has neither; ValueError if there is a device here already, and `devices` names some,
        or if one of those cannot do what the options ask for; RuntimeError if one is not there.
        """
        if self.device is not None and devices is not None and not isinstance(devices, int):
            raise ValueError(f"the calculator has device={self.device!r}, and devices={devices!r}: give one of them")
        if isinstance(devices, list | tuple):
            for name in devices:
                resolve_device(name)
                check_options(dtype=self.dtype, device=name, forces=self.forces, backend=self.backend, tf32=self.tf32)
        return self._replace(model=portable_name(self.model))


class ChunkResult(NamedTuple):
    """What came of a chunk."""

    outcomes: list[Prediction | str]  # of each item, or why there is none
    warnings: list[str]  # texts
    seconds: float
    worker: str  # host and process


@torch.inference_mode(False)  # as in evaluate
def evaluate_chunk(options: Options, items: Sequence[Item]) -> ChunkResult:
    """Predictions for all items; what is wrong with one is the outcome of that one."""
    start = time.perf_counter()
    backend = _backend(options.model, options.dtype, options.device, options.forces, options.backend, options.tf32)
    outcomes: dict[int, Prediction | str] = {}
    graphs: dict[int, GraphBatch] = {}
    with warnings.catch_warnings(record=True) as noticed:
        warnings.simplefilter("always", UserWarning)
        for item in items:
            try:
                cache = neighbor_cache(backend.cutoffs, device=backend.device, among_others=item.atoms)
                graph = cache.graph(item.atoms, item.index)
                IsolatedGuard(options.on_isolated_atoms, backend.cutoffs.atom).check(graph, item.index)
                graphs[item.index] = graph
            except (ValueError, MemoryError) as error:
                if isinstance(error, MemoryError):
                    error = graph_too_large(error, item.atoms, backend)
                outcomes[item.index] = str(error).removeprefix(f"system {item.index}: ")
    found = (p for batch in batches(iter(graphs.values())) for p in evaluate_batch(batch, backend, options.gradient))
    for index, prediction in zip(graphs, found, strict=True):
        outcomes[index] = str(prediction) if isinstance(prediction, MemoryError) else prediction
    return ChunkResult(
        [outcomes[item.index] for item in items],
        [str(warning.message) for warning in noticed],
        time.perf_counter() - start,
        f"{socket.gethostname()}:{os.getpid()}",
    )


@functools.lru_cache(maxsize=4)
def _backend(
    model: str | Checkpoint, dtype: str, device: str | None, forces: Forces, backend: str, tf32: bool
) -> Backend:
    """Once in a process, not once a chunk."""
    return load_backend(model, dtype=dtype, device=device, forces=forces, backend=backend, tf32=tf32)
