"""A step and its memory against stock chgnet on the same GPU, in turn."""

import gc
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator

from ase_fastchgnet import FastCHGNet
from benchmarks._gpu_setting import WARM_UP, Row, Setting, structure, trembling
from benchmarks._gpu_speed import attempted
from benchmarks._trajectory import begin, ratio
from benchmarks.stock import stock_calculator

SYSTEMS = tuple(f"LiMnO2-{8 * n**3}" for n in range(1, 6))  # 8 to 1,000 atoms
LEAST_RATIO = 20  # of time and memory, from 300 to 1,000 atoms
BARRED = range(300, 1001)


def measure(setting: Setting) -> Iterator[Row]:
    """A row for each system; none where stock is not installed."""
    if importlib.util.find_spec("chgnet") is None:
        print("stock: chgnet is not installed, nothing to compare with")
        return
    for name in setting.names(*SYSTEMS):
        yield attempted(name, partial(against_stock, name, setting))


def against_stock(name: str, setting: Setting) -> Row:
    """Milliseconds of an MD step, and the memory of the device, of either."""
    atoms, device = structure(name), str(setting.device)
    makers: dict[str, Callable[[], Calculator]]
    makers = {"ours": partial(FastCHGNet, device=device), "stock": partial(stock_calculator, device=device)}
    peaks = {who: setting.peak_bytes(partial(steps, atoms, make)) for who, make in makers.items()}
    ours, stock = (begin(atoms, make, setting.sample_seconds, warm_up=WARM_UP) for make in makers.values())
    for turn in range(setting.rounds):
        for trajectory in (ours, stock) if turn % 2 else (stock, ours):
            trajectory.sample()
    row: Row = {
        "system": name,
        "atoms": len(atoms),
        "ours_ms": ours.median_ms,
        "stock_ms": stock.median_ms,
        "ratio": ratio(stock, ours),
        "samples_ms": {
            who: [1e3 * s for s in trajectory.samples] for who, trajectory in (("ours", ours), ("stock", stock))
        },
        "ours_peak_bytes": peaks["ours"],
        "stock_peak_bytes": peaks["stock"],
    }
    if peaks["ours"] and peaks["stock"]:
        row["memory_ratio"] = peaks["stock"] / peaks["ours"]
    if torch.cuda.is_available() and len(atoms) in BARRED:
        row |= {"bar_ratio": LEAST_RATIO, "meets_bar": min(row["ratio"], row["memory_ratio"]) >= LEAST_RATIO}
    return row


def steps(atoms: Atoms, make: Callable[[], Calculator]) -> None:
    """Some evaluations of a new calculator."""
    moving = atoms.copy()
    moving.calc = make()
    move = trembling(moving)
    for _ in range(WARM_UP):
        moving.get_forces()
        move()
    gc.collect()
