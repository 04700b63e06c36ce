"""estimate_memory(): does a structure fit?  And what an error says where one does not."""

import os

import torch
from ase import Atoms

from ase_fastchgnet.graph import Cutoffs, GraphBatch
from ase_fastchgnet.graph.device_search import Grid, plan_grid
from ase_fastchgnet.graph.memory import cache_bytes, graph_bytes, search_bytes
from ase_fastchgnet.graph.size import RowCounts, count_rows
from ase_fastchgnet.graph.skin import MARGIN
from ase_fastchgnet.graph.validate import complete_lattice, read_geometry
from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.model.engine import Engine
from ase_fastchgnet.model.engine.memory import adjoint_bytes, direct_bytes, index_bytes, weight_bytes
from fastchgnet_kernels import runs_kernels

from .backend import DTYPES, Backend, check_options, requested_device
from .source import Forces, ModelSource, load_weights

USABLE = 0.95  # of the memory there is; an allowance for what an allocator rounds up and breaks up, not measured


@torch.inference_mode(False)  # as in load_weights
def estimate_memory(
    atoms: Atoms,
    model: ModelSource = "0.3.0",
    *,
    device: str | None = None,
    dtype: str = "float32",
    forces: Forces = "conservative",
    skin: float = 0.0,
) -> int:
    """Bytes of device memory at the fullest moment of one evaluation of energy, forces and stress of `atoms`.

    The weights, the graph with the search for it, the forward pass and the adjoint, counted from the numbers of atoms,
    edges and angles; neighbours are counted on the CPU, in a second or two for 100,000 atoms, and no device is needed,
    so that device="cuda" can be asked about anywhere.  `skin` is 0 in `evaluate` and 1 Å in FastCHGNet unless set.
    The number lies between 5 % below and 20 % above what is asked for.  What is not in it: some hundred MB that a CUDA
    device needs for itself, what its allocator rounds up, and the memory of a step that a calculator records for a
    small system; on a CPU, Python with its libraries, and the search, which takes a fraction of what comes after it.
    """
    check_options(dtype=dtype, device=device, forces=forces, backend="auto", tf32=False)
    place = requested_device(device) or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint = load_weights(model, forces)
    cutoffs = Cutoffs(checkpoint.config.atom_cutoff, checkpoint.config.bond_cutoff)
    rows = count_rows(atoms, cutoffs, skin)
    grid = _grid(atoms, cutoffs.atom + skin + MARGIN) if place.type == "cuda" else None
    return _peak(rows, checkpoint, DTYPES[dtype], forces, place, grid)


def what_fits(structure: Atoms | GraphBatch, backend: Backend, skin: float = 0.0) -> str:
    """For an error: how much memory a structure needs, and how many atoms of its kind there is memory for.

    In brackets, after a space; "" where that is not known.
    """
    available, engine = _available(backend.device), backend.model
    if available is None or not isinstance(engine, Engine):
        return ""
    try:
        rows = (
            _rows_of(structure) if isinstance(structure, GraphBatch) else count_rows(structure, backend.cutoffs, skin)
        )
    except (MemoryError, RuntimeError):  # the host has too little for it as well
        return ""
    needed = _peak(rows, backend.checkpoint, backend.dtype, engine.forces, backend.device, None)
    always = weight_bytes(backend.checkpoint, backend.dtype.itemsize)
    fitting = int((USABLE * available - always) / (needed - always) * rows.atoms)
    there = f"{rows.atoms:,} atoms need about {_amount(needed)}, and {_amount(available)} of {backend.device}"
    if fitting >= rows.atoms:
        return f" ({there} would be enough, were other things not in it)"
    return f" ({there} are enough for some {_rounded_down(max(fitting, 0)):,} atoms of this structure)"


def _peak(
    rows: RowCounts, checkpoint: Checkpoint, dtype: torch.dtype, forces: Forces, device: torch.device, grid: Grid | None
) -> int:
    """Bytes; with a `grid`, the device searches it for neighbours."""
    kernels, itemsize = runs_kernels(device), dtype.itemsize
    if forces == "direct":
        passes = direct_bytes(rows, checkpoint, itemsize, kernels=kernels)
    else:
        passes = adjoint_bytes(rows, checkpoint.config, itemsize, kernels=kernels)
    evaluation = graph_bytes(rows) + cache_bytes(rows) + index_bytes(rows) + passes
    search = 0 if grid is None else search_bytes(rows, grid)
    return weight_bytes(checkpoint, itemsize) + max(evaluation, search)


def _grid(atoms: Atoms, radius: float) -> Grid:
    geometry = read_geometry(atoms, 0)
    return plan_grid(geometry.positions, complete_lattice(geometry, 0), geometry.pbc, radius)


def _rows_of(graph: GraphBatch) -> RowCounts:
    """Of a graph without a skin."""
    return RowCounts(graph.n_atoms, graph.n_bonds, graph.n_bonds, len(graph.short_bonds), graph.n_angles)


def _available(device: torch.device) -> int | None:
    """Bytes that an evaluation may take: on a CUDA device what is free, or in the hands of this process's allocator."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _amount(size: float) -> str:
    """ "412 GB", to three digits."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:,.0f} {name}" if size >= 100 * unit else f"{size / unit:.3g} {name}"
    return f"{size / 1e3:.3g} kB"


def _rounded_down(number: int) -> int:
    """To two digits."""
    step: int = 10 ** max(len(str(number)) - 2, 0)
    return number - number % step
