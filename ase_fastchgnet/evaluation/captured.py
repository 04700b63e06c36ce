"""CapturedStep: a whole step of a moving system, graph and model, as one CUDA graph.

An evaluation is some hundreds of kernels. Those of a small system take less time than their launches, so its step is
recorded once, on tensors that stay where they are (graph/fixed_graph.py), and played again: positions go up, one
launch, results come down. What is recorded serves as long as atoms, and the axes that are periodic, are the same, and
while edges and angles fit in; cell and neighbours may change. What it cannot do it leaves to be done step by step.
"""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from ase_fastchgnet.graph import AnyCache, DeviceNeighborCache, GraphBatch, isolated_atoms
from ase_fastchgnet.graph.device_arrays import pack
from ase_fastchgnet.graph.device_cache import Reference
from ase_fastchgnet.graph.device_pairing import Sizes
from ase_fastchgnet.graph.fixed_graph import Capacity, FixedGraph, Summary, capacity_for
from ase_fastchgnet.graph.validate import MIN_DISTANCE, Geometry, read_geometry
from fastchgnet_kernels import on_device

from .backend import Backend
from .prediction import Array, Prediction, prediction_of

_log = logging.getLogger(__name__)

LARGEST = 2**18  # candidate edges; a larger system keeps a device busy for longer than launches take
PATIENCE = 3  # evaluations of the same atoms before a step is recorded


class Evaluated(NamedTuple):
    """What is known of a structure, and its embeddings, which hold until the next step."""

    prediction: Prediction
    site_embeddings: Tensor  # (atoms, 64)
    crystal_embeddings: Tensor  # (1, 64)


class Results(NamedTuple):
    """What a step leaves on the device."""

    row: Tensor  # a Summary, then energies, magnetic moments, forces and virial
    site_embeddings: Tensor
    crystal_embeddings: Tensor


@dataclass(slots=True)
class _Recorded:
    """A step that can be played again."""

    numbers: bytes  # of the atoms
    pbc: bytes
    graph: FixedGraph
    results: Results
    play: Callable[[], None]
    loaded: Reference  # the search whose candidates it knows


def captured_step(backend: Backend, cache: AnyCache) -> "CapturedStep | None":
    """For graphs that are built on the device, and a model that never waits for it."""
    if isinstance(cache, DeviceNeighborCache) and backend.name != "reference":
        return CapturedStep(backend, cache)
    return None


class CapturedStep:
    """Energy, forces, stress and magnetic moments of one system as it moves."""

    def __init__(self, backend: Backend, cache: DeviceNeighborCache) -> None:
        self._backend = backend
        self._cache = cache
        self._recorded: _Recorded | None = None
        self._last = (b"", b"")
        self._seen = 0  # evaluations of `_last`, one by one
        self._capacity = Capacity(0, 0, 0, 0)  # recorded for it before
        self._refused = False

    def evaluate(self, atoms: Atoms) -> Evaluated | None:
        """All of `atoms` as they are now; None if that has to be done without a recorded step."""
        recorded, reference = self._recorded, self._cache.reference
        if recorded is None or reference is None:
            return None
        now = read_geometry(atoms, 0)
        deformation = reference.deformation(now, 0)
        if deformation is None or not self._load(recorded, reference, now):
            return None
        recorded.graph.place(now, reference.start(deformation))
        recorded.play()
        row = recorded.results.row.cpu().numpy()  # the host waits here
        summary = Summary(*row[: len(Summary._fields)].tolist())
        if not summary.fits(recorded.graph.capacity) or summary.alone:
            self._recorded = None
            return None
        reaches = self._cache.reaches(summary.moved, summary.moved_apart, deformation)
        if not reaches or summary.shortest < MIN_DISTANCE**2:
            return None
        return _evaluated(row[len(summary) :], now, recorded.results)

    def _load(self, recorded: _Recorded, reference: Reference, now: Geometry) -> bool:
        """Whether the recorded step is one of these atoms, and has room for the candidates of the last search."""
        fits = reference.candidates.n_bonds <= recorded.graph.capacity.candidates
        if _key(now) != (recorded.numbers, recorded.pbc) or not fits:
            self._recorded = None
            return False
        if recorded.loaded is not reference:
            recorded.graph.load(reference.candidates)
            recorded.loaded = reference
        return True

    def learn(self, graph: GraphBatch) -> None:
        """Told of the cache's last graph after each evaluation without a recorded step; records one in time."""
        now, reference = self._cache.geometry, self._cache.reference
        if now is None or reference is None or 2 * reference.candidates.n_bonds > LARGEST:
            return
        if _key(now) != self._last:
            self._last, self._seen, self._refused, self._capacity = _key(now), 0, False, Capacity(0, 0, 0, 0)
        self._seen += 1
        if self._recorded is not None or self._seen < PATIENCE or self._refused:
            return
        if len(isolated_atoms(graph)):  # which are warned of where there is a graph
            self._refused = True
            return
        self._record(now, graph, reference)

    def _record(self, now: Geometry, graph: GraphBatch, reference: Reference) -> None:
        sizes = Sizes(graph.n_bonds, len(graph.short_bonds), graph.n_angles)
        capacity = capacity_for(reference.candidates.n_bonds, sizes).or_more(self._capacity)
        fixed = FixedGraph(self._cache.cutoffs, now, capacity, self._backend.device)
        fixed.load(reference.candidates)
        fixed.place(now, reference.positions)
        try:
            results, play = record(lambda: self.run(fixed), self._backend.device)
        except RuntimeError as error:  # also torch.OutOfMemoryError
            warnings.warn(f"steps go on without a CUDA graph, which would be faster: {error}", stacklevel=5)
            self._refused = True
            return
        self._capacity = capacity
        _log.debug("recorded a step of %d atoms with %s", len(now.positions), capacity)
        self._recorded = _Recorded(*_key(now), fixed, Results(*results), play, reference)

    def run(self, fixed: FixedGraph) -> Results:
        """The step itself, which is recorded: it reads the tensors of `fixed` and never waits for the device."""
        graph, summary = fixed.build()
        output = self._backend.evaluate(graph)
        assert output.forces is not None
        assert output.virial is not None
        n = fixed.n_atoms
        row = pack(summary, output.atom_energies[:n], output.magmoms[:n], output.forces[:n], output.virial[0])
        return Results(row, output.site_embeddings[:n], output.crystal_embeddings[:1])


def record(
    run: Callable[[], tuple[Tensor, ...]], device: torch.device
) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
    """The tensors that `run` returns, and a function that writes them again from what `run` reads.

    On a CUDA device its kernels are recorded as a CUDA graph; `run` must not wait for the device, and must work on the
    same sizes whatever it reads. On a CPU, where nothing can be recorded, it runs again.
    """
    if device.type != "cuda":
        results = run()

        @torch.inference_mode()  # the engine's tensors are written to in that mode alone
        def run_again() -> None:
            for tensor, new in zip(results, run(), strict=True):
                tensor.copy_(new)

        return results, run_again
    with on_device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # compiles kernels, and lets libraries set themselves up
            run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            results = run()
    return results, graph.replay


def _key(now: Geometry) -> tuple[bytes, bytes]:
    return now.numbers.tobytes(), now.pbc.tobytes()


def _evaluated(values: Array, now: Geometry, results: Results) -> Evaluated:
    n = len(now.positions)
    energies, magmoms, forces, virial = np.split(values, [n, 2 * n, 5 * n])
    prediction = prediction_of(energies, magmoms, forces.reshape(n, 3), virial.reshape(3, 3), now.cell, now.pbc)
    return Evaluated(prediction, results.site_embeddings, results.crystal_embeddings)
