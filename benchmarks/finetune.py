"""Fine-tuning 0.3.0 on molybdenum (mlearn): how much better it gets there, and what it forgets elsewhere.

    python -m benchmarks.finetune            all ways, writes results/finetune.json, figures and a table of docs
    python -m benchmarks.finetune --quick    a few structures and steps, one way, writes nothing

Each way is `fastchgnet finetune` with its defaults, but for seven epochs, in as many processes as there are cores
(`torchrun`), on the 194 training frames of Mo.  Tested are the test frames of mlearn, and what does not change as long
as nothing is forgotten: crystals of the Materials Project, moved and strained, labelled by 0.3.0 itself.
"""

import argparse
import json
import lzma
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from PIL import Image
from rich.console import Console
from rich.table import Table

from ase_fastchgnet import load_checkpoint
from ase_fastchgnet.training.labels import Labelled
from ase_fastchgnet.training.replay import replayed
from benchmarks._report import read_result, write_result
from benchmarks.report import circumstances, fill, markdown

DATA = Path(__file__).parent / "data"
DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "recipes" / "fine-tuning.md"
TESTS = ("Mo", "Cu", "Ni", "Li", "Si", "Ge", "crystals")
N_REPLAY, N_CRYSTALS = 400, 60
EPOCHS = 7
WAYS: dict[str, list[str]] = {
    "nothing against forgetting": [],
    "replay": ["--replay", "replay.extxyz"],
}


def write_data(folder: Path, quick: bool) -> None:
    """Mo-train, a test file of each name, and structures to replay."""
    with lzma.open(DATA / "mlearn.extxyz.xz", "rt") as file:
        frames = read(StringIO(file.read()), ":", format="extxyz")
    assert isinstance(frames, list)
    training = [frame for frame in frames if frame.info["split"] == "train"]
    write(folder / "Mo-train.extxyz", training[:: 12 if quick else 1])
    for element in TESTS[:-1]:
        of_it = [f for f in frames if f.info["split"] == "test" and f.info["element"] == element]
        write(folder / f"{element}.extxyz", of_it[:: 12 if quick else 1])
    crystals = mp_crystals()
    write(folder / "replay.extxyz", crystals[:N_REPLAY])
    model, device = load_checkpoint("0.3.0"), torch.device("cpu")
    count = 4 if quick else N_CRYSTALS
    again = replayed(crystals[N_REPLAY:], model, count=count, seed=1, device=device)
    write(folder / "crystals.extxyz", [with_labels(one) for one in again])


def mp_crystals() -> list[Atoms]:
    """2,000 crystals of the Materials Project."""
    with lzma.open(DATA / "mp20_2000.jsonl.xz", "rt") as lines:
        return [Atoms(**json.loads(line)["structure"]) for line in lines]


def with_labels(one: Labelled) -> Atoms:
    """Atoms that a file keeps the labels of."""
    assert one.stress is not None
    atoms: Atoms = one.atoms.copy()
    values = {"energy": one.energy, "forces": one.forces, "stress": one.stress, "magmoms": one.magmoms}
    atoms.calc = SinglePointCalculator(atoms, **values)
    return atoms


def finetune(folder: Path, out: str, options: Sequence[str], processes: int) -> dict[str, Any]:
    """Errors before and after, and the seconds of the whole command."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    tests = [f"--test={name}.extxyz" for name in TESTS]
    command = [*start, "ase_fastchgnet", "finetune", "Mo-train.extxyz", "--out", out, *tests, *options]
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    seconds = time.perf_counter() - began
    errors = json.loads((folder / out / "errors.json").read_text())
    return {"seconds": seconds, "config": json.loads((folder / out / "config.json").read_text()), "errors": errors}


def cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A row of before and one for each way: its name, its minutes, and errors of forces / energies."""
    found = [["0.3.0", "", *(cell(rows[0]["errors"][name]["before"]) for name in TESTS)]]
    for row in rows:
        after = (cell(row["errors"][name]["after"]) for name in TESTS)
        found.append([row["way"], f"{row['seconds'] / 60:.0f}", *after])
    return found


def cell(errors: Mapping[str, float]) -> str:
    return f"{1e3 * errors['force_mae_eV_A']:.0f} / {1e3 * errors['energy_mae_eV_per_atom']:.0f}"


def describe(result: Mapping[str, Any]) -> str:
    """What the documentation says."""
    first, rows = result["rows"][0], result["rows"]
    epochs, processes = first["config"]["epochs"], first["processes"]
    return (
        f"{circumstances(result)}\n\nMean absolute errors of forces, meV/Å / of energies, meV/atom, after {epochs} "
        f"epochs of 175 frames of Mo, {processes} processes. Mo, Cu, Ni, Li, Si and Ge are test frames of mlearn; "
        f"crystals are {N_CRYSTALS} of the Materials Project, moved and strained, with 0.3.0's own predictions as "
        "labels, not among those replayed. Minutes are upper bounds: other programs were running.\n\n"
        + markdown(["", "min", *TESTS], cells(rows))
    )


def keep_picture(source: Path, target: Path) -> None:
    """The same picture in 64 colours, which makes it half as large."""
    Image.open(source).convert("RGB").quantize(64).save(target, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tuning on molybdenum, and what is forgotten.")
    parser.add_argument("--quick", action="store_true", help="a few structures, one epoch, nothing is written")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="default: one per core")
    options = parser.parse_args()
    ways = dict([next(iter(WAYS.items()))]) if options.quick else WAYS
    epochs = f"--epochs={1 if options.quick else EPOCHS}"
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, options.quick)
        for number, (way, arguments) in enumerate(ways.items()):
            found = finetune(folder, f"run{number}", [epochs, *arguments], options.processes)
            rows.append({"way": way, "processes": options.processes, **found})
            if not options.quick:
                write_result("finetune", rows)  # after each, for they take minutes
        if not options.quick:
            for picture, kept in (("parity-Mo.png", "finetune-parity.png"), ("curves.png", "finetune-curves.png")):
                keep_picture(folder / "run1" / picture, DOCS / "figures" / kept)
    if not options.quick and (result := read_result("finetune")):
        PAGE.write_text(fill(PAGE.read_text(), {"finetune": describe(result)}))
    shown = Table(title="Mean absolute errors: forces, meV/Å / energies, meV/atom")
    for column in ("", "min", *TESTS):
        shown.add_column(column, justify="right" if column else "left")
    for row in cells(rows):
        shown.add_row(*row)
    Console(width=None if Console().is_terminal else 120).print(shown)


if __name__ == "__main__":
    main()
