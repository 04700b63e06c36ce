"""What one process does for all its workers: measured on the real `screen`, with answers that cost nothing."""

import json
import lzma
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

from ase_fastchgnet import FastCHGNet, Prediction, screen
from ase_fastchgnet.evaluation.chunk import ChunkResult, Item
from ase_fastchgnet.evaluation.cost import CostModel, fit
from ase_fastchgnet.graph.size import Size, size_of
from ase_fastchgnet.parallel.pool import WorkerPool

DATA = Path(__file__).parent / "data"
GROUP = 200  # structures of one measurement


class Parent(NamedTuple):
    """Seconds that a process takes to keep its workers at work."""

    model: CostModel  # to read, size, send, receive and write a structure
    message: float  # from a worker's answer to its next chunk, round trip


def measure(model: CostModel) -> Parent:
    """On crystals of up to 20 atoms, and twice that; processor time, which other processes disturb least."""
    crystals = sorted(read_crystals()[::2], key=len)
    groups = [crystals[n : n + GROUP] for n in range(0, len(crystals), GROUP)]
    groups += [[atoms.repeat((2, 1, 1)) for atoms in group] for group in groups]
    calculator = FastCHGNet()
    sizes = [[size_of(atoms, calculator.cutoffs) for atoms in group] for group in groups]
    _screened(groups[0], sizes[0], calculator, model)  # the first pays for imports
    seconds = [_screened(group, of, calculator, model) for group, of in zip(groups, sizes, strict=True)]
    return Parent(fit([Size.total(of) for of in sizes], seconds), _message_seconds(crystals[:20]))


def read_crystals() -> list[Atoms]:
    """The structures of data/mp20_2000.jsonl.xz."""
    with lzma.open(DATA / "mp20_2000.jsonl.xz") as file:
        return [Atoms(**json.loads(line)["structure"]) for line in file]


class _Answers:
    """An executor with the traffic of a WorkerPool, whose answers are random numbers."""

    def __init__(self, model: CostModel, sizes: Sequence[Size]) -> None:
        self._model, self._sizes = model, sizes
        self._random = np.random.default_rng(0)
        self.made = 0.0  # seconds that the answers took, which are no work of the parent

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> "Future[Any]":
        """The finished call."""
        pickle.dumps((fn, args, {}), pickle.HIGHEST_PROTOCOL)
        start = time.process_time()
        answer = pickle.dumps((True, self._answer(args[0])), pickle.HIGHEST_PROTOCOL)
        self.made += time.process_time() - start
        future: Future[Any] = Future()
        future.set_result(pickle.loads(answer)[1])
        return future

    def _answer(self, items: Sequence[Item]) -> ChunkResult:
        size = Size.total(self._sizes[item.index] for item in items)
        predictions: list[Prediction | str] = [self._prediction(len(item.atoms)) for item in items]
        return ChunkResult(predictions, [], self._model.seconds(size), "nobody")

    def _prediction(self, n: int) -> Prediction:
        normal = self._random.normal
        return Prediction(
            energy=normal(), energies=normal(size=n), magmoms=normal(size=n), forces=normal(size=(n, 3)),
            stress=normal(size=6),
        )  # fmt: skip


def _screened(group: Sequence[Atoms], sizes: Sequence[Size], calculator: FastCHGNet, model: CostModel) -> float:
    """Seconds of the processor that screening took, evaluation apart."""
    answers = _Answers(model, sizes)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "crystals.jsonl"
        source.write_text("".join(json.dumps(_listed(atoms)) + "\n" for atoms in group))
        start = time.process_time()
        screen(source, Path(folder) / "results.jsonl", calculator, executor=answers, progress=False)
        return time.process_time() - start - answers.made


def _listed(atoms: Atoms) -> dict[str, Any]:
    return {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.tolist(),
        "pbc": True,
    }


def _message_seconds(crystals: Sequence[Atoms], repeat: int = 100) -> float:
    """Round trip of a chunk to a worker process that has nothing to do."""
    items = [Item(n, atoms) for n, atoms in enumerate(crystals)]
    seconds = []
    with WorkerPool([{}]) as pool:
        for _ in range(repeat):
            start = time.perf_counter()
            pool.submit(len, items).result()
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
