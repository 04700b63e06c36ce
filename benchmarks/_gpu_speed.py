"""How long a step takes, of what it is made, and how much memory it needs."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from ase import Atoms

from ase_fastchgnet import FastCHGNet, estimate_memory
from ase_fastchgnet.evaluation import captured, load_backend
from ase_fastchgnet.graph import neighbor_cache
from benchmarks._gpu_setting import CRYSTALS, WARM_UP, Row, Setting, capture, series, structure, trembling
from benchmarks._trajectory import begin

SKIN = 1.0  # Å, the calculator's
SYSTEMS = series(*CRYSTALS)
HUGE = "Si-1000000"
MOST_BYTES = 250_000  # of an atom
CROWD = 1000  # atoms from which on what a system takes whatever its size is little
# ms a step, LiMnO2 on an H200, float32: what this engine must reach. No other GPU has such a bar.
STEP_BARS = {8: 0.6, 1000: 1.5, 10648: 10.0, 110592: 100.0}


def measure_speed(setting: Setting) -> Iterator[Row]:
    """A row for each system."""
    for name in setting.names(*SYSTEMS):
        yield attempted(name, partial(speed, name, setting))


def speed(name: str, setting: Setting) -> Row:
    """Milliseconds of one system.

    md           a step of ASE's dynamics                    evaluation   energy, forces and stress, without ASE's part
    graph        of it, the graph from known candidates      model        and the model, from a graph at hand
    search       a graph for which neighbours are searched   eager        the same where no step is recorded
    """
    atoms, backend = structure(name), load_backend(device=str(setting.device))
    move, cache = trembling(atoms), neighbor_cache(backend.cutoffs, SKIN, device=setting.device)
    graph = cache.graph(atoms).to(backend.device)
    edges = graph.n_edges
    row: Row = {
        "system": name,
        "atoms": len(atoms),
        "edges_per_atom": edges / len(atoms),
        "angles_per_atom": graph.n_angles / len(atoms),
        "md_ms": dynamics(atoms, setting),
        "evaluation_ms": evaluation(atoms, setting),
        "graph_ms": setting.milliseconds(lambda: cache.graph(atoms), move),
        "search_ms": setting.milliseconds(
            lambda: neighbor_cache(backend.cutoffs, SKIN, device=setting.device).graph(atoms)
        ),
        "model_ms": setting.milliseconds(lambda: backend.evaluate(graph)),
    }
    if edges <= captured.LARGEST:
        with capture(False):
            row |= {"md_eager_ms": dynamics(atoms, setting), "evaluation_eager_ms": evaluation(atoms, setting)}
    if setting.device.type == "cuda":
        row["md_tf32_ms"] = dynamics(atoms, setting, tf32=True)
    row["us_per_atom"] = 1e3 * row["md_ms"] / len(atoms)
    return row | bar(name, row["md_ms"])


def bar(name: str, md_ms: float) -> Row:
    """What the step may take, where that is laid down for this GPU and system."""
    kind, _, atoms = name.rpartition("-")
    if kind != "LiMnO2" or int(atoms) not in STEP_BARS or not _is_h200():
        return {}
    most = STEP_BARS[int(atoms)]
    return {"bar_ms": most, "meets_bar": md_ms < most}


def _is_h200() -> bool:
    return torch.cuda.is_available() and "H200" in torch.cuda.get_device_name()


def dynamics(atoms: Atoms, setting: Setting, *, tf32: bool = False) -> float:
    """Median time of an MD step, ms."""
    make = partial(FastCHGNet, device=str(setting.device), tf32=tf32)
    trajectory = begin(atoms, make, setting.sample_seconds, warm_up=WARM_UP)
    for _ in range(setting.rounds):
        trajectory.sample()
    return trajectory.median_ms


def evaluation(atoms: Atoms, setting: Setting) -> float:
    """Median time of energy, forces and stress of moved atoms, ms."""
    moving, calculator = atoms.copy(), FastCHGNet(device=str(setting.device))
    return setting.milliseconds(lambda: calculator.calculate(moving, ("energy", "forces", "stress")), trembling(moving))


def measure_memory(setting: Setting) -> Iterator[Row]:
    """A row for each system, and at the end a million atoms at once."""
    load_backend(device=str(setting.device))  # weights are there whatever the system
    for name in setting.names(*SYSTEMS):
        yield attempted(name, partial(memory, name, setting))
    if not (setting.quick or setting.systems):
        yield attempted(HUGE, partial(memory, HUGE, setting))


def memory(name: str, setting: Setting) -> Row:
    """The most that tensors hold in steps that are recorded where such are, and in steps that are not."""
    atoms, seconds = structure(name), list[float]()

    def steps() -> None:
        moving, calculator = atoms.copy(), FastCHGNet(device=str(setting.device))
        move = trembling(moving)
        for _ in range(WARM_UP):
            start = time.perf_counter()
            calculator.calculate(moving, ("energy", "forces", "stress"))
            seconds.append(time.perf_counter() - start)
            move()

    shipped = setting.peak_bytes(steps)
    with capture(False):
        eager = setting.peak_bytes(steps)
    row: Row = {"system": name, "atoms": len(atoms), "peak_bytes": shipped, "peak_eager_bytes": eager}
    row["estimated_bytes"] = estimate_memory(atoms, device=str(setting.device), skin=SKIN)
    row["evaluation_ms"] = 1e3 * statistics.median(seconds[1:WARM_UP])
    if shipped is not None:
        row["bytes_per_atom"] = shipped / len(atoms)
        if len(atoms) >= CROWD:
            row |= {"bar_bytes": MOST_BYTES, "meets_bar": row["bytes_per_atom"] <= MOST_BYTES}
    return row


def attempted(name: str, run: Callable[[], Row]) -> Row:
    """The row; where memory was too small for it, what was said."""
    try:
        return run()
    except (MemoryError, torch.OutOfMemoryError) as error:
        message = str(error).splitlines()[0]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {"system": name, "atoms": int(name.rpartition("-")[2]), "missed": message}
