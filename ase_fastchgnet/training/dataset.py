"""GraphDataset: the graphs of labelled structures, built once, read from memory-mapped files, laid out in batches."""

import hashlib
import json
import logging
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_fastchgnet.graph import Cutoffs, GraphBatch, NeighborCache
from ase_fastchgnet.graph.batch import check_index_range
from ase_fastchgnet.training.columns import Column, InMemory, OnDisk, Rows, load
from ase_fastchgnet.training.labels import Labelled

_log = logging.getLogger(__name__)

FORMAT = 1  # of the files; other ones are built again
DESCRIPTION = "dataset.json"  # written last: files without it are not complete

# Everything of a structure that has as many rows as there are …; indices count from the start of the structure.
FIELDS: dict[str, tuple[str, type, tuple[int, ...]]] = {
    "cell": ("systems", np.float64, (3, 3)),
    "pbc": ("systems", np.bool_, (3,)),
    "energies": ("systems", np.float64, ()),
    "stress": ("systems", np.float64, (3, 3)),
    "numbers": ("atoms", np.uint8, ()),
    "positions": ("atoms", np.float64, (3,)),
    "forces": ("atoms", np.float64, (3,)),
    "magmoms": ("atoms", np.float64, ()),
    "degree": ("atoms", np.int32, ()),  # edges that leave the atom
    "neighbor": ("edges", np.int32, ()),
    "image": ("edges", np.int16, (3,)),
    "bond_of_edge": ("edges", np.int32, ()),
    "edges_of_bond": ("bonds", np.int32, (2,)),
    "short_bonds": ("short", np.int32, ()),
    "n_received": ("short", np.int32, ()),  # angles that the short bond receives
    "edges_of_angle": ("angles", np.int32, (2,)),
}
COUNTED = ("atoms", "edges", "bonds", "short", "angles")  # columns of `counts.npy`


class Labels(NamedTuple):
    """What is known of the structures of a batch, in float64; NaN where nothing is."""

    energies: Tensor  # (systems,) eV, of the whole structure
    forces: Tensor  # (atoms, 3) eV/Å
    stress: Tensor  # (systems, 3, 3) eV/Å³, tension positive
    magmoms: Tensor  # (atoms,) μ_B

    def to(self, device: torch.device | str) -> "Labels":
        """The same on another device."""
        return Labels(*(labels.to(device, non_blocking=True) for labels in self))


class Batch(NamedTuple):
    """Graphs laid end to end, and their labels."""

    graph: GraphBatch
    labels: Labels

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device."""
        return Batch(self.graph.to(device), self.labels.to(device))


class GraphDataset:
    """Graphs and labels by number; `build` makes one."""

    def __init__(self, rows: Mapping[str, Rows], counts: NDArray[np.int64]) -> None:
        self._rows, self._counts = rows, counts
        ends = np.cumsum(counts, axis=0)
        self._start, self._end = ends - counts, ends
        self.sizes: NDArray[np.int64] = counts[:, [COUNTED.index(name) for name in ("atoms", "edges", "angles")]]

    @classmethod
    def build(cls, labelled: Sequence[Labelled], cutoffs: Cutoffs, folder: Path | None) -> Self:
        """The graphs of all structures: from the files in `folder`, if those were made of the same, else new ones.

        New ones are kept in `folder`, in place of what it held of another dataset; with None, in memory.  ValueError
        names a structure that has no graph.  Processes that share a folder should build one after the other.
        """
        if not labelled:
            raise ValueError("there are no labelled structures to build graphs of")
        if folder is None:
            return cls(*_build(labelled, cutoffs, lambda name, dtype, shape: InMemory(dtype, shape)))
        checksum = _checksum(labelled, cutoffs)
        if not _is_complete(folder, checksum):
            _build_files(labelled, cutoffs, folder, checksum)
        return cls({name: load(folder / f"{name}.npy") for name in FIELDS}, load(folder / "counts.npy"))

    def __len__(self) -> int:
        return len(self.sizes)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The structures of these numbers, in this order, laid end to end; nothing shares memory with the dataset."""
        chosen = np.asarray(indices, dtype=np.int64)
        if not len(chosen):
            raise ValueError("a batch of no structures")
        counts = dict(zip(COUNTED, self._counts[chosen].T, strict=True)) | {"systems": np.ones(len(chosen), np.int64)}
        check_index_range(**{kind: int(each.sum()) for kind, each in counts.items()})
        rows = {name: self._joined(name, chosen) for name in FIELDS}
        labels = Labels(*(torch.from_numpy(rows[name]) for name in Labels._fields))
        return Batch(_graph(rows, counts), labels)

    def _joined(self, name: str, chosen: NDArray[np.int64]) -> Rows:
        """The rows that belong to these structures, copied."""
        all_rows, kind = self._rows[name], FIELDS[name][0]
        if kind == "systems":
            return all_rows[chosen]
        column = COUNTED.index(kind)
        start, end = self._start[chosen, column].tolist(), self._end[chosen, column].tolist()
        return np.concatenate([all_rows[i:j] for i, j in zip(start, end, strict=True)])


def prefetch(
    dataset: GraphDataset, indices: Iterable[Sequence[int]], *, device: torch.device | str = "cpu", ahead: int = 2
) -> Iterator[Batch]:
    """The batches of these indices in order; a thread makes the next `ahead` of them while one is being used."""
    pin = torch.device(device).type == "cuda"  # only from pinned memory do copies run beside computations

    def make(chosen: Sequence[int]) -> Batch:
        batch = dataset.batch(chosen)
        return _pinned(batch).to(device) if pin else batch

    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as thread:
        try:
            for chosen in indices:
                waiting.append(thread.submit(make, chosen))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _pinned(batch: Batch) -> Batch:
    graph = {name: getattr(batch.graph, name).pin_memory() for name in batch.graph.__dataclass_fields__}
    return Batch(GraphBatch(**graph), Labels(*(labels.pin_memory() for labels in batch.labels)))


def _graph(rows: Mapping[str, Rows], counts: Mapping[str, NDArray[np.int64]]) -> GraphBatch:
    """Structures laid end to end, of their joined rows and the numbers of them that each structure has."""

    def shifted(name: str, counted: str) -> Tensor:
        """Indices, moved by the number of what they count in the structures before."""
        before = np.cumsum(counts[counted]) - counts[counted]
        shift = np.repeat(before.astype(np.int32), counts[FIELDS[name][0]])
        return torch.from_numpy(rows[name] + (shift[:, None] if rows[name].ndim == 2 else shift))

    def numbered(each: Rows) -> Tensor:
        """0, 0, 0, 1, 1, …: `each` says how often."""
        return torch.from_numpy(np.repeat(np.arange(len(each), dtype=np.int32), each))

    def pointers(each: Rows) -> Tensor:
        return torch.from_numpy(np.concatenate([[0], np.cumsum(each)]).astype(np.int32))

    return GraphBatch(
        cell=torch.from_numpy(rows["cell"]),
        pbc=torch.from_numpy(rows["pbc"]),
        atom_ptr=pointers(counts["atoms"]),
        numbers=torch.from_numpy(rows["numbers"].astype(np.int32)),
        positions=torch.from_numpy(rows["positions"]),
        system_of_atom=numbered(counts["atoms"]),
        edge_ptr=pointers(rows["degree"]),
        center=numbered(rows["degree"]),
        neighbor=shifted("neighbor", "atoms"),
        image=torch.from_numpy(rows["image"].astype(np.int32)),
        bond_of_edge=shifted("bond_of_edge", "bonds"),
        edges_of_bond=shifted("edges_of_bond", "edges"),
        short_bonds=shifted("short_bonds", "bonds"),
        angle_ptr=pointers(rows["n_received"]),
        edges_of_angle=shifted("edges_of_angle", "edges"),
    )


def _build_files(labelled: Sequence[Labelled], cutoffs: Cutoffs, folder: Path, checksum: str) -> None:
    """Builds beside `folder`'s files and puts them there when all are complete."""
    folder.mkdir(parents=True, exist_ok=True)
    _log.info("building the graphs of %d structures in %s", len(labelled), folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix="building-") as name:
        place = Path(name)
        _, counts = _build(labelled, cutoffs, lambda name, dtype, shape: OnDisk(place / f"{name}.npy", dtype, shape))
        np.save(place / "counts.npy", counts)
        description = {"format": FORMAT, "checksum": checksum, "structures": len(labelled), "cutoffs": asdict(cutoffs)}
        (place / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")
        (folder / DESCRIPTION).unlink(missing_ok=True)
        for file in (*(f"{field}.npy" for field in FIELDS), "counts.npy", DESCRIPTION):
            os.replace(place / file, folder / file)


def _build(
    labelled: Sequence[Labelled],
    cutoffs: Cutoffs,
    column: Callable[[str, type, tuple[int, ...]], Column],
) -> tuple[dict[str, Rows], NDArray[np.int64]]:
    """Rows of all FIELDS, and the (structures, 5) numbers of them that each structure has, as COUNTED."""
    examples = {kind: name for name, (kind, _, _) in FIELDS.items()}
    counts = np.empty((len(labelled), len(COUNTED)), dtype=np.int64)
    with ExitStack() as stack:
        columns = {name: column(name, dtype, shape) for name, (_, dtype, shape) in FIELDS.items()}
        for each in columns.values():
            stack.callback(each.close)
        for index, one in enumerate(labelled):
            found = _rows_of(one, cutoffs)
            for name, rows in found.items():
                columns[name].append(rows)
            counts[index] = [len(found[examples[kind]]) for kind in COUNTED]
        return {name: each.finish() for name, each in columns.items()}, counts


def _rows_of(one: Labelled, cutoffs: Cutoffs) -> dict[str, Rows]:
    """The rows of one structure; ValueError names it."""
    try:
        graph = NeighborCache(cutoffs).graph(one.atoms)
    except ValueError as error:
        raise ValueError(f"{one.source}: {error}") from error
    n_atoms = graph.n_atoms
    image = graph.image.numpy()
    if np.abs(image).max(initial=0) > np.iinfo(np.int16).max:
        raise ValueError(f"{one.source}: atoms lie more than 32,767 cells apart; move them into one with atoms.wrap()")
    return {
        "cell": graph.cell.numpy(),
        "pbc": graph.pbc.numpy(),
        "energies": np.array([np.nan if one.energy is None else one.energy]),
        "stress": np.full((1, 3, 3), np.nan) if one.stress is None else one.stress[None],
        "numbers": graph.numbers.numpy(),
        "positions": graph.positions.numpy(),
        "forces": np.full((n_atoms, 3), np.nan) if one.forces is None else one.forces,
        "magmoms": np.full(n_atoms, np.nan) if one.magmoms is None else one.magmoms,
        "degree": graph.edge_ptr.diff().numpy(),
        "neighbor": graph.neighbor.numpy(),
        "image": image,
        "bond_of_edge": graph.bond_of_edge.numpy(),
        "edges_of_bond": graph.edges_of_bond.numpy(),
        "short_bonds": graph.short_bonds.numpy(),
        "n_received": graph.angle_ptr.diff().numpy(),
        "edges_of_angle": graph.edges_of_angle.numpy(),
    }


def _is_complete(folder: Path, checksum: str) -> bool:
    """Whether the files in `folder` are of a dataset with this checksum."""
    path = folder / DESCRIPTION
    if not path.is_file():
        return False
    description = json.loads(path.read_text())
    return bool(description.get("format") == FORMAT and description.get("checksum") == checksum)


def _checksum(labelled: Sequence[Labelled], cutoffs: Cutoffs) -> str:
    """SHA-256 of everything that graphs and labels are made of."""
    digest = hashlib.sha256(repr((FORMAT, len(labelled), cutoffs)).encode())
    for one in labelled:
        atoms = one.atoms
        known = (one.energy, one.forces, one.stress, one.magmoms)
        for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, *known):
            digest.update(b"-" if array is None else np.asarray(array).tobytes())
    return digest.hexdigest()
