"""Two real processes train as one: the same gradients, balanced work, and the same course after a kill."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command import environment
from safetensors.torch import load_file

from ase_fastchgnet.graph import Cutoffs
from ase_fastchgnet.model.checkpoint import load_checkpoint
from ase_fastchgnet.model.network import Network
from ase_fastchgnet.training.config import TrainConfig
from ase_fastchgnet.training.dataset import GraphDataset
from ase_fastchgnet.training.errors import loss_weights
from ase_fastchgnet.training.labels import read_labelled
from ase_fastchgnet.training.objective import loss
from tests.training.material import write_labelled
from tests.training.test_resume import kill_when, place

TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
RUN = ["-m", "ase_fastchgnet", "finetune", "data.extxyz", "--epochs", "2", "--batch-size", "4", "--save-every", "0"]

# Each process takes its share of one batch and writes its gradients.
GRADIENTS = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from ase_fastchgnet.graph import Cutoffs
from ase_fastchgnet.model.checkpoint import load_checkpoint
from ase_fastchgnet.model.network import Network
from ase_fastchgnet.training.config import TrainConfig
from ase_fastchgnet.training.dataset import GraphDataset
from ase_fastchgnet.training.distributed import ranks
from ase_fastchgnet.training.errors import loss_weights
from ase_fastchgnet.training.labels import read_labelled
from ase_fastchgnet.training.objective import label_counts, loss

config = TrainConfig()
with ranks("cpu") as team:
    data = GraphDataset.build(read_labelled("data.extxyz"), Cutoffs(6.0, 3.0), None)
    network = Network(load_checkpoint("0.3.0")).train()
    share = {0: [0, 1, 2, 3, 4], 1: [5, 6, 7]}[team.rank]  # not even the counts are equal
    batch = data.batch(share)
    counts = team.sum(label_counts(batch.labels)) / team.size
    module = team.wrap(network)  # kept: gradients are averaged as long as it lives
    output = module(batch.graph, forces="conservative")
    loss(output, batch, loss_weights(config), counts=counts).total.backward()
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    save_file(found, f"gradients-{team.rank}.safetensors")
"""


def test_gradients_of_two_processes_are_those_of_one_up_to_rounding(tmp_path: Path) -> None:
    write_labelled(tmp_path / "data.extxyz", 8)
    labelled = read_labelled(tmp_path / "data.extxyz")
    (tmp_path / "gradients.py").write_text(GRADIENTS)
    subprocess.run([*TWO, "gradients.py"], cwd=tmp_path, env=environment(), check=True, timeout=200)
    first, second = (load_file(tmp_path / f"gradients-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)

    data = GraphDataset.build(labelled, Cutoffs(6.0, 3.0), None)
    batch = data.batch(range(8))
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-5)):
        network = Network(load_checkpoint("0.3.0"), dtype=dtype).train()
        loss(network(batch.graph, forces="conservative"), batch, loss_weights(TrainConfig())).total.backward()
        whole = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        assert whole.keys() == first.keys()
        scale = max(float(gradient.abs().max()) for gradient in whole.values())
        worst = max(float((whole[name] - first[name]).abs().max()) for name in whole)
        assert worst < tolerance * scale, dtype


def run(out: str, *more: str) -> list[str]:
    return [*TWO, *RUN, "--out", out, *more]


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_go_on_to_the_same_bytes(tmp_path: Path) -> None:
    write_labelled(tmp_path / "data.extxyz", 53)
    environment_of_run = environment()
    subprocess.run(run("whole"), cwd=tmp_path, env=environment_of_run, check=True, capture_output=True, timeout=300)
    kill_when(run("killed"), tmp_path, lambda: place(tmp_path / "killed" / "state.safetensors") == (1, 8), child=1)
    arguments = run("killed", "--resume")
    done = subprocess.run(arguments, cwd=tmp_path, env=environment_of_run, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "from step 20 of 24" in done.stderr
    for name in ("model.safetensors", "errors.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.slow
def test_what_stops_the_first_process_is_said_once_and_ends_the_other(tmp_path: Path) -> None:
    (tmp_path / "data.extxyz").write_text("no structures")
    done = subprocess.run(
        [*TWO, *RUN, "--out", "run"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode != 0
    assert done.stderr.count("error: data.extxyz: cannot be read by ase.io") == 1
    assert "error: process 1 ends, because process 0 stopped, which says why" in done.stderr
    assert "gloo" not in done.stderr
