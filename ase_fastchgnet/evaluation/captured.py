"""CapturedStep: the steps of a moving system as CUDA graphs, one to choose bonds and angles and one to evaluate them.

An evaluation is some hundreds of kernels. Those of a small system take less time than their launches, so they are
recorded once, on tensors that stay where they are (graph/fixed_graph.py), and played again: positions go up, one
launch, results come down. Bonds are chosen anew, which is one launch more, when atoms have moved by more than a bit.
What is recorded serves as long as atoms, and the axes that are periodic, are the same, and while edges and angles fit
in; cell and neighbours may change. What it cannot do it leaves to be done step by step.
"""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from ase import Atoms
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ase_fastchgnet.graph import AnyCache, Cutoffs, DeviceNeighborCache, GraphBatch, isolated_atoms
from ase_fastchgnet.graph.device_arrays import pack
from ase_fastchgnet.graph.device_cache import Reference
from ase_fastchgnet.graph.device_pairing import Candidates, Sizes, Topology
from ase_fastchgnet.graph.fixed_graph import Capacity, FixedGraph, Summary, capacity_for, sizes_within
from ase_fastchgnet.graph.skin import Moved, Start
from ase_fastchgnet.graph.validate import MIN_DISTANCE, Geometry, read_geometry
from ase_fastchgnet.model.engine import Engine
from ase_fastchgnet.model.engine.index import GraphIndex, build_index
from fastchgnet_kernels import on_device

from .backend import Backend
from .prediction import Array, Prediction, prediction_of

_log = logging.getLogger(__name__)
T = TypeVar("T")

HOLD = 0.2  # Å beyond the cut-offs, for which a choice of bonds serves some steps of dynamics ...
HELD_ROWS = 2**15  # ... where neither edges nor angles are more than a GPU works on at once, and some more take no time
LARGEST = 2**18  # candidate edges; a larger system keeps a device busy for longer than launches take
PATIENCE = 3  # evaluations of the same atoms before a step is recorded
AGAIN = 100  # and before one is where an atom was alone


class Evaluated(NamedTuple):
    """What is known of a structure, and its embeddings, which hold until the next step."""

    prediction: Prediction
    site_embeddings: Tensor  # (atoms, 64)
    final_embeddings: Tensor  # (atoms, 64)


class Results(NamedTuple):
    """What a step leaves on the device."""

    row: Tensor  # a Summary, then energies, magnetic moments, forces and virial
    site_embeddings: Tensor
    final_embeddings: Tensor


class Chosen(NamedTuple):
    """What a choice of bonds leaves there for the steps that follow."""

    topology: Topology
    graph_index: GraphIndex
    summary: Tensor  # a row of numbers


@dataclass(slots=True)
class _Recorded:
    """A choice and a step that can be played again."""

    numbers: bytes  # of the atoms
    pbc: bytes
    graph: FixedGraph
    bonds: Chosen  # which the step reads
    results: Results
    choose: Callable[[], None]
    step: Callable[[], None]
    loaded: Reference | None = None  # the search whose candidates it knows
    searched: Start | None = None  # where
    chosen: Start | None = None  # where bonds were; None if that was before the search


def captured_step(backend: Backend, cache: AnyCache) -> "CapturedStep | None":
    """For graphs that are built on the device, and a model that never waits for it."""
    if isinstance(cache, DeviceNeighborCache) and backend.name != "reference":
        return CapturedStep(backend, cache)
    return None


class CapturedStep:
    """Energy, forces, stress and magnetic moments of one system as it moves."""

    def __init__(self, backend: Backend, cache: DeviceNeighborCache) -> None:
        assert isinstance(backend.model, Engine)
        self._engine = backend.model
        self._device = backend.device
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
        if not self._load(recorded, reference, now):
            return None
        assert recorded.searched is not None
        moved = recorded.searched.moved(now, 0)
        if moved is None or not self._cache.reaches(moved):
            return None
        recorded.graph.place(now)
        moved = self._choose(recorded, now)
        recorded.step()
        row = recorded.results.row.cpu().numpy()  # the host waits here
        summary = Summary(*row[: len(Summary._fields)].tolist())
        if not summary.fits(recorded.graph.capacity) or summary.alone:
            self._recorded, self._seen = None, -AGAIN if summary.alone else self._seen
            return None
        if moved.shrinks * summary.shortest - moved.apart < MIN_DISTANCE:
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
            recorded.loaded, recorded.searched, recorded.chosen = reference, reference.start(), None
        return True

    def _choose(self, recorded: _Recorded, now: Geometry) -> Moved:
        """Chooses bonds anew unless those that are chosen lack none, and no atom can have lost all that were certain.

        How far atoms are from where that was. What reaches the one cut-off and has not grown reaches the other, too:
        from apart ≤ c - σ (c - h) for atoms follows apart ≤ σ (b + h) - b for bonds if σ ≥ 1, and if not, it does from
        apart ≤ σ (c + h) - c.
        """
        moved = None if recorded.chosen is None else recorded.chosen.moved(now, 0)
        cutoff, hold = self._cache.cutoffs.atom, recorded.graph.hold
        if moved is None or not (moved.reaches(cutoff, cutoff + hold) and moved.keeps(cutoff - hold, cutoff)):
            recorded.chosen = None  # until it is done
            recorded.choose()
            recorded.chosen, moved = Start.of(now, 0), Moved()
        return moved

    def learn(self, graph: GraphBatch) -> None:
        """Told of the cache's last graph after each evaluation without a recorded step; records one in time."""
        now, reference = self._cache.geometry, self._cache.reference
        if now is None or reference is None or self._cache.skin == 0:  # without a skin every step searches
            return
        if 2 * reference.candidates.n_bonds > LARGEST:
            return
        if _key(now) != self._last:
            self._last, self._seen, self._refused, self._capacity = _key(now), 0, False, Capacity(0, 0, 0, 0)
        self._seen += 1
        if self._recorded is not None or self._seen < PATIENCE or self._refused:
            return
        if len(isolated_atoms(graph)):  # which are warned of where there is a graph
            self._seen = -AGAIN
            return
        self._record(now, graph, reference)

    def _record(self, now: Geometry, graph: GraphBatch, reference: Reference) -> None:
        candidates = reference.candidates
        hold, sizes = self._hold(graph, candidates)
        capacity = capacity_for(candidates.n_bonds, sizes).or_more(self._capacity)
        fixed = FixedGraph(self._cache.cutoffs, now, capacity, self._device, hold)
        fixed.load(candidates)
        fixed.place(now)
        try:
            chosen, choose = record(lambda: self.choose(fixed), self._device)
            results, step = record(lambda: self.step(fixed, chosen), self._device)
        except RuntimeError as error:  # also torch.OutOfMemoryError
            warnings.warn(f"steps go on without a CUDA graph, which would be faster: {error}", stacklevel=5)
            self._refused = True
            return
        self._capacity = capacity
        _log.debug("recorded a step of %d atoms with %s", len(now.positions), capacity)
        self._recorded = _Recorded(*_key(now), fixed, chosen, results, choose, step)

    def _hold(self, graph: GraphBatch, candidates: Candidates) -> tuple[float, Sizes]:
        """By how much bonds are chosen beyond the cut-offs, and how many they are then.

        Layers with a bias write into systems that have an angle, so that angles from beyond the cut-off would count.
        """
        cutoffs = self._cache.cutoffs
        if not self._engine.config.mlp_out_bias and cutoffs.bond + HOLD <= cutoffs.atom - HOLD:
            held = Cutoffs(cutoffs.atom + HOLD, cutoffs.bond + HOLD)
            sizes = sizes_within(candidates, graph.positions, graph.cell[0], held)
            if max(2 * sizes.bonds, sizes.angles) <= HELD_ROWS:
                return HOLD, sizes
        return 0.0, Sizes(graph.n_bonds, len(graph.short_bonds), graph.n_angles)

    def choose(self, fixed: FixedGraph) -> Chosen:
        """Chooses bonds, which is recorded: it reads the tensors of `fixed` and never waits for the device."""
        topology, summary = fixed.choose()
        return Chosen(topology, build_index(fixed.graph(topology)), summary)

    def step(self, fixed: FixedGraph, chosen: Chosen) -> Results:
        """The step itself, which is recorded likewise: it reads those of `chosen`, too."""
        with on_device(self._device):
            output = self._engine.evaluate(fixed.graph(chosen.topology), index=chosen.graph_index)
        assert output.forces is not None
        assert output.virial is not None
        n, summary = fixed.n_atoms, chosen.summary
        row = pack(summary, output.atom_energies[:n], output.magmoms[:n], output.forces[:n], output.virial[0])
        return Results(row, output.site_embeddings[:n], output.final_embeddings[:n])


def record(run: Callable[[], T], device: torch.device) -> tuple[T, Callable[[], None]]:
    """The tensors that `run` returns, and a function that writes them again from what `run` reads.

    On a CUDA device its kernels are recorded as a CUDA graph; `run` must not wait for the device, and must work on the
    same sizes whatever it reads. On a CPU, where nothing can be recorded, it runs again.
    """
    if device.type != "cuda":
        results = run()

        @torch.inference_mode()  # the engine's tensors are written to in that mode alone
        def run_again() -> None:
            for tensor, new in zip(tree_leaves(results), tree_leaves(run()), strict=True):
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
        graph.replay()  # until then there is nothing in the tensors for others to read
    return results, graph.replay


def _key(now: Geometry) -> tuple[bytes, bytes]:
    return now.numbers.tobytes(), now.pbc.tobytes()


def _evaluated(values: Array, now: Geometry, results: Results) -> Evaluated:
    n = len(now.positions)
    energies, magmoms, forces, virial = np.split(values, [n, 2 * n, 5 * n])
    prediction = prediction_of(energies, magmoms, forces.reshape(n, 3), virial.reshape(3, 3), now.cell, now.pbc)
    return Evaluated(prediction, results.site_embeddings, results.final_embeddings)
