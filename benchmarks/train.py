"""A training step against that of stock chgnet's own Trainer: time, and peak memory in a process of its own.

    python -m benchmarks.train                     writes results/train.json
    python -m benchmarks.train --threads 1 --batch 16 --rounds 3

Same frames (64 of MPtrj), same batches, same targets (energy, forces, stress), same weights to start from, graphs built
beforehand on both sides. Stock is its Trainer's `_train`, which is an epoch; ours does in a step what `training.loop`
does. A round is one epoch of each side, in turns, so that a busy machine is busy for all.
"""

import argparse
import contextlib
import io
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ase import units
from rich.console import Console
from rich.table import Table

from benchmarks._report import write_result
from benchmarks.memory import peak_mib

FRAMES = Path(__file__).parent / "data" / "mptrj_64.extxyz.xz"
SIDES = ("stock", "conservative", "direct")
Epoch = Callable[[], None]


def stock_epoch(batch_size: int) -> Epoch:
    """One epoch of chgnet's Trainer on graphs that its dataset keeps."""
    from pymatgen.io.ase import AseAtomsAdaptor

    from ase_fastchgnet.training.labels import read_labelled

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from chgnet.data.dataset import StructureData, collate_graphs
        from chgnet.model import CHGNet
        from chgnet.trainer import Trainer
        from torch.utils.data import DataLoader

        model = CHGNet.load(use_device="cpu", verbose=False)
        labelled = read_labelled(FRAMES)
        frames = [one.atoms for one in labelled]
        energies, forces, stresses = zip(*((one.energy, one.forces, one.stress) for one in labelled), strict=True)
        data = StructureData(
            [AseAtomsAdaptor.get_structure(atoms) for atoms in frames],
            [energy / len(atoms) for energy, atoms in zip(energies, frames, strict=True)],
            list(forces),
            stresses=[stress / -(units.GPa / 10) for stress in stresses],  # kilobar, compression positive
            graph_converter=model.graph_converter,
            shuffle=False,
        )
        data[0]
        loader = DataLoader(data, batch_size=batch_size, collate_fn=collate_graphs, shuffle=False)
        for _ in loader:  # builds and keeps all graphs
            pass
        trainer = Trainer(
            model, targets="efs", criterion="Huber", learning_rate=1e-6, use_device="cpu", print_freq=10**9
        )

    def epoch() -> None:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer._train(loader, 0)

    return epoch


def our_epoch(forces: str, batch_size: int) -> Epoch:
    """The same with the network, loss and optimiser of this package."""
    from ase_fastchgnet import load_checkpoint
    from ase_fastchgnet.graph import Cutoffs
    from ase_fastchgnet.model.network import Network
    from ase_fastchgnet.training.dataset import GraphDataset
    from ase_fastchgnet.training.labels import read_labelled
    from ase_fastchgnet.training.objective import LossWeights, loss

    network = Network(load_checkpoint("0.3.0-direct" if forces == "direct" else "0.3.0"))
    data = GraphDataset.build(read_labelled(FRAMES), Cutoffs(6.0, 3.0), None)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=1e-6)
    importance = LossWeights()

    def epoch() -> None:
        network.train()
        for first in range(0, len(data), batch_size):
            batch = data.batch(list(range(first, first + batch_size)))
            parts = loss(network(batch.graph, forces=forces), batch, importance)
            optimiser.zero_grad()
            parts.total.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()

    return epoch


def epoch_of(side: str, batch_size: int) -> Epoch:
    return stock_epoch(batch_size) if side == "stock" else our_epoch(side, batch_size)


def memory_here(side: str, batch_size: int) -> dict[str, float]:
    """MiB that two epochs take beyond what was there before, graphs included."""
    epoch = epoch_of(side, batch_size)
    before = peak_mib()
    epoch()
    epoch()
    return {"before_mib": before, "peak_mib": peak_mib()}


def memory(side: str, batch_size: int, threads: int) -> dict[str, float]:
    """The same in a process of its own."""
    numbers = [f"--batch={batch_size}", f"--threads={threads}"]
    command = [sys.executable, "-m", "benchmarks.train", f"--here={side}", *numbers]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(batch_size: int, rounds: int, threads: int) -> list[dict[str, Any]]:
    epochs = {side: epoch_of(side, batch_size) for side in SIDES}
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for round_ in range(rounds + 1):
        for side, epoch in epochs.items():
            start = time.perf_counter()
            epoch()
            if round_ > 0:
                seconds[side].append(time.perf_counter() - start)
    steps = 64 // batch_size
    rows: list[dict[str, Any]] = []
    for side in SIDES:
        used = memory(side, batch_size, threads)
        step = statistics.median(seconds[side]) / steps
        rows.append({"side": side, "batch": batch_size, "seconds_per_step": step, **used})
        rows[-1]["memory_mib"] = used["peak_mib"] - used["before_mib"]
        rows[-1]["times_faster"] = rows[0]["seconds_per_step"] / step
        rows[-1]["times_less_memory"] = rows[0]["memory_mib"] / rows[-1]["memory_mib"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--here", choices=SIDES, help="measure the memory of this process; used internally")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.here:
        print(json.dumps(memory_here(given.here, given.batch)))
        return
    rows = measure(given.batch, given.rounds, given.threads)
    shown = Table(
        "side", "s/step", "times faster", "MiB", "times less", title="One training step, energy + forces + stress"
    )
    for row in rows:
        numbers = ("seconds_per_step", "times_faster", "memory_mib", "times_less_memory")
        shown.add_row(row["side"], *(f"{row[name]:.3g}" for name in numbers))
    console = Console()
    console.print(shown)
    console.print(f"written: {write_result('train', rows)}")


if __name__ == "__main__":
    main()
