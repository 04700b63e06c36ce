"""A training step against that of stock chgnet's own Trainer: time, and peak memory beyond what was there before.

    python -m benchmarks.train                     writes results/train.json
    python -m benchmarks.train --cores 1 --batch 16 --rounds 3

Same frames (64 of MPtrj), batches of the same size, same targets (energy, forces, stress), same weights to start from,
graphs built beforehand on both sides, on the same cores. Stock is its Trainer's `_train`, which is an epoch, with a
thread on each core; ours does in a step what `training.loop` does, in a process on each core, which is how `torchrun`
trains (memory is that of all processes), and for comparison in one process with all threads. A round is one epoch of
each in turns, so that a busy machine is busy for all.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ase import units
from rich.console import Console
from rich.table import Table

from benchmarks._report import write_result
from benchmarks.memory import peak_mib

if TYPE_CHECKING:
    from ase_fastchgnet.training.distributed import Ranks

FRAMES = Path(__file__).parent / "data" / "mptrj_64.extxyz.xz"
N_FRAMES = 64
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


def our_epoch(forces: str, batch_size: int, team: "Ranks") -> Epoch:
    """The same with the network, loss, optimiser and sampler of this package; the share of this process."""
    from ase_fastchgnet import load_checkpoint
    from ase_fastchgnet.graph import Cutoffs
    from ase_fastchgnet.model.network import Network
    from ase_fastchgnet.training.balance import BalancedBatchSampler
    from ase_fastchgnet.training.cost import TYPICAL
    from ase_fastchgnet.training.dataset import GraphDataset
    from ase_fastchgnet.training.labels import read_labelled
    from ase_fastchgnet.training.objective import LossWeights, label_counts, loss

    module = team.wrap(Network(load_checkpoint("0.3.0-direct" if forces == "direct" else "0.3.0")))
    data = GraphDataset.build(read_labelled(FRAMES), Cutoffs(6.0, 3.0), None)
    costs = TYPICAL.of_structures(data.sizes)
    sampler = BalancedBatchSampler(costs, batch_size=batch_size // team.size, n_ranks=team.size, rank=team.rank)
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=1e-6)
    importance = LossWeights()

    def epoch() -> None:
        module.train()
        for mine in sampler:
            batch = data.batch(mine)
            counts = team.sum(label_counts(batch.labels)) / team.size
            parts = loss(module(batch.graph, forces=forces), batch, importance, counts=counts)
            optimiser.zero_grad()
            parts.total.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()

    return epoch


def here(side: str, batch_size: int) -> dict[str, float] | None:
    """Seconds of an epoch that follows another, and MiB beyond what was there before both; of all processes together.

    None except in the first process.
    """
    from ase_fastchgnet.training.distributed import ranks

    with ranks("cpu") as team:
        epoch = stock_epoch(batch_size) if side == "stock" else our_epoch(side, batch_size, team)
        before = peak_mib()
        epoch()
        team.wait()
        start = time.perf_counter()
        epoch()
        team.wait()
        seconds = time.perf_counter() - start
        memory = sum(team.gather(peak_mib() - before))
        return {"seconds": seconds, "memory_mib": memory} if team.is_main else None


def measure_once(side: str, batch_size: int, processes: int, threads: int) -> dict[str, float]:
    """`here` in processes of its own."""
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command = [*start, "benchmarks.train", f"--here={side}", f"--batch={batch_size}", f"--cores={threads}"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, float] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return found


def measure(batch_size: int, rounds: int, cores: int, console: Console) -> list[dict[str, Any]]:
    cases = [("stock", 1, cores), ("conservative", cores, 1), ("direct", cores, 1)]
    if cores > 1:
        cases += [("conservative", 1, cores), ("direct", 1, cores)]
    found: list[list[dict[str, float]]] = [[] for _ in cases]
    for round_ in range(rounds):
        for number, case in enumerate(cases):
            found[number].append(measure_once(case[0], batch_size, *case[1:]))
            console.print(f"round {round_ + 1}: {case[0]}, {case[1]} × {case[2]}: {found[number][-1]['seconds']:.2f} s")
    rows: list[dict[str, Any]] = []
    for (side, processes, threads), measured in zip(cases, found, strict=True):
        step = statistics.median(one["seconds"] for one in measured) / (N_FRAMES // batch_size)
        used = statistics.median(one["memory_mib"] for one in measured)
        row = {"side": side, "processes": processes, "threads": threads, "batch": batch_size, "seconds_per_step": step}
        stock = rows[0] if rows else {"seconds_per_step": step, "memory_mib": used}
        gains = {"times_faster": stock["seconds_per_step"] / step, "times_less_memory": stock["memory_mib"] / used}
        rows.append({**row, "memory_mib": used, **gains})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--here", choices=SIDES, help="measure this process; used internally")
    given = parser.parse_args()
    torch.set_num_threads(given.cores)
    if given.here:
        if (found := here(given.here, given.batch)) is not None:
            print(json.dumps(found))
        return
    console = Console()
    rows = measure(given.batch, given.rounds, given.cores, console)
    shown = Table("", "processes × threads", "s/step", "times faster", "MiB", "times less", title="One training step")
    for row in rows:
        numbers = ("seconds_per_step", "times_faster", "memory_mib", "times_less_memory")
        where = f"{row['processes']} × {row['threads']}"
        shown.add_row(row["side"], where, *(f"{row[name]:.3g}" for name in numbers))
    console.print(shown)
    console.print(f"written: {write_result('train', rows)}")


if __name__ == "__main__":
    main()
