"""The tuner's choice of blocks on the CPU against exhaustive search, and against the model without measuring.

    python -m benchmarks.tuner --threads 1    writes results/tuner-1.json; 10 to 30 minutes
    python -m benchmarks.tuner --quick        two systems, few rounds, writes nothing

Every block size is timed (forward and backward pass of the op, the MLP computed again) in turn with one of them, and
counts by the median of the ratios, because the machine drifts by more than sizes differ. The tuner measures its short
list by itself; how far its choice is from the best is then read off the exhaustive measurement, as is how far the
model's own choice and fixed blocks of 2048 rows are.
"""

import argparse
from typing import Any

import torch

from ase_fastchgnet import load_checkpoint
from ase_fastchgnet.graph import Cutoffs, build_batch
from ase_fastchgnet.model.engine.gated_ops import Op, gated_ops
from ase_fastchgnet.model.engine.tuning import ROUNDS, tune_op
from ase_fastchgnet.model.engine.weights import pack
from benchmarks._report import write_result
from benchmarks.systems import chosen
from fastchgnet_kernels.io_model.block_rows import modelled_rows
from fastchgnet_kernels.io_model.device import this_cpu

SYSTEMS = ("LiMnO2-8", "LiMnO2-64", "LiMnO2-512", "Si-64", "Si-512", "MgO-64", "MgO-512", "Cu-32", "Cu-500")
FIXED_ROWS = 2048
CPU = torch.device("cpu")


def measure(system: str, op: Op, rounds: int) -> dict[str, Any]:
    """One op: what the tuner chose, what exhaustive search found, and what every size took."""
    tuning = tune_op(op, CPU, rounds=rounds)
    everything = tune_op(op, CPU, exhaustive=True, rounds=rounds)
    seconds = {row.candidate.choice: row.seconds for row in everything.rows if row.seconds is not None}
    least = min(seconds.values())
    model = modelled_rows(op.shape, this_cpu(torch.get_num_threads()))
    model = min(model, max(seconds))  # the largest is all in one block
    fixed = FIXED_ROWS if FIXED_ROWS in seconds else max(seconds)  # all in one block
    return {
        "system": system,
        "op": op.name,
        "messages": op.shape.messages,
        "chosen_rows": tuning.best.candidate.choice,
        "best_rows": everything.best.candidate.choice,
        "model_rows": model,
        "measured": tuning.n_measured,
        "measured_exhaustive": everything.n_measured,
        "loss": tuning.loss(everything),
        "model_loss": seconds[model] / least - 1,
        "fixed_loss": seconds[fixed] / least - 1,
        "candidates": [
            {
                "rows": row.candidate.choice,
                "predicted_ms": 1e3 * row.candidate.seconds,
                "moved_mib": row.candidate.moved_bytes / 2**20,
                "bound_ratio": row.bound_ratio,
                "measured_ms": None if row.seconds is None else 1e3 * row.seconds,
            }
            for row in sorted(everything.rows, key=lambda row: row.candidate.choice)
        ],
    }


def line(row: dict[str, Any]) -> str:
    losses = "".join(f"{100 * row[name]:9.1f}" for name in ("loss", "model_loss", "fixed_loss"))
    sizes = f"{row['chosen_rows']:7d}{row['model_rows']:7d}{row['best_rows']:7d}"
    counts = f"{row['measured']:4d} of {row['measured_exhaustive']:2d}"
    return f"{row['system']:12}{row['op']:12}{row['messages']:8d}{sizes}{counts:>10}{losses}"


def main() -> None:
    parser = argparse.ArgumentParser(description="The tuner against exhaustive search, on CPU blocks.")
    parser.add_argument("--quick", action="store_true", help="two systems, three rounds, nothing is written")
    parser.add_argument("--threads", type=int, help="torch threads (default torch's own choice)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    weights, rows = pack(load_checkpoint("0.3.0"), torch.float32, "cpu"), []
    print(f"{'':24}    rows chosen  model   best  measured   % slower than the best: chosen, model, {FIXED_ROWS}")
    for system, atoms in chosen(["LiMnO2-64", "Si-64"] if options.quick else SYSTEMS).items():
        for op in gated_ops(build_batch([atoms], Cutoffs()), weights):
            rows.append(measure(system, op, 5 if options.quick else ROUNDS))
            print(line(rows[-1]), flush=True)
    if not options.quick:
        print(f"written: {write_result(f'tuner-{torch.get_num_threads()}', rows)}")


if __name__ == "__main__":
    main()
