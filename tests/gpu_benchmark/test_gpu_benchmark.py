"""What of the GPU benchmark needs no GPU: that it runs, whom it refuses, what it keeps, what its bars let through."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ase_fastchgnet import load_checkpoint
from ase_fastchgnet.graph import Cutoffs, build_batch
from ase_fastchgnet.model.engine.gated_ops import gated_ops
from ase_fastchgnet.model.engine.weights import pack
from benchmarks import _gpu_parity, _gpu_profile, _gpu_report, _gpu_tuner, _report, gpu
from benchmarks._gpu_setting import Setting, capture, repeats_of, structure
from fastchgnet_kernels._launch import DEFAULT_TILE
from fastchgnet_kernels.io_model.known_gpus import KNOWN

ROOT = Path(__file__).parents[2]
CPU = Setting(torch.device("cpu"), quick=True, systems=("Si-8",))
BARE = (
    "chgnet",
    "jaxtyping",
    "matplotlib",
    "pandas",
    "phonopy",
    "platformdirs",
    "pyarrow",
    "pymatgen",
    "rich",
    "spglib",
)
BARE += ("tqdm", "typer", "yaml")
DEVICE = {"name": "NVIDIA H100 80GB HBM3", "triton": "3.7.1"}


def run_bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The benchmark in a process that has torch, triton, numpy, ase, vesin and safetensors, and what they need."""
    start = f"import runpy, sys; sys.modules.update(dict.fromkeys({BARE})); sys.argv[1:] = {list(arguments)}; "
    start += "runpy.run_module('benchmarks.gpu', run_name='__main__')"
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", start], env=environment, cwd=ROOT, capture_output=True, text=True
    )


def test_runs_on_a_bare_box_and_writes_nothing() -> None:
    """On the CPU, where it measures the same through the same code."""
    before = sorted(_report.RESULTS.iterdir())
    parts = ("speed", "memory", "profile", "tuner")
    done = run_bare("--device", "cpu", "--quick", "--systems", "Si-8", "--parts", *parts)
    assert done.returncode == 0, done.stderr[-3000:]
    titles = [line for line in done.stdout.splitlines() if line in gpu.PARTS]
    assert titles == ["parity", *parts]
    assert sorted(_report.RESULTS.iterdir()) == before


@pytest.mark.slow  # half a minute of the same
def test_every_part_runs_with_all_packages(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--device", "cpu", "--quick", "--systems", "Si-8"])
    shown = capsys.readouterr().out
    assert all(part in shown for part in gpu.PARTS)


@pytest.mark.slow  # Triton's interpreter takes a quarter of a minute
def test_arguments_of_forward_kernels_are_what_the_model_says_must_be_moved() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", str(Path(__file__).with_name("interpreted.py"))]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which is not refused")
def test_refuses_to_run_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        gpu.main([])
    assert stopped.value.code == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_speed_is_not_reported_where_a_bar_is_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(_gpu_parity.BARS["float32"], "forces", 1e-12)  # no float32 reaches it
    monkeypatch.setattr(_gpu_parity, "QUICK", ("NaCl",))
    with pytest.raises(SystemExit) as stopped:
        gpu.run(["speed"], CPU)
    assert stopped.value.code == 1
    said = capsys.readouterr()
    assert "forces in float32" in said.err
    assert "speed" not in said.out


def test_a_result_that_is_no_number_or_does_not_repeat_is_missed() -> None:
    exact = next(iter(_gpu_parity.references({"Si-8": structure("Si-8")}).values()))
    assert exact.prediction.forces is not None
    nowhere = np.full_like(exact.prediction.forces, np.nan)
    broken = type(exact.prediction)(
        **{name: getattr(exact.prediction, name) for name in ("energy", "energies", "magmoms", "stress")},
        forces=nowhere,
    )
    assert _gpu_parity.apart(broken, exact.prediction)["forces"] == np.inf
    assert not _gpu_parity.equal(broken, exact.prediction)
    row: dict[str, Any] = {"quantity": "forces", "kind": "float32", "way": "recorded", "of": "Si-8", "unit": "eV/Å"}
    row |= {"structure": "Si-8", "worst": 0.0}
    assert _gpu_parity.missed([row | {"share_of_bar": 1.0, "repeats": True}]) == []
    assert len(_gpu_parity.missed([row | {"share_of_bar": np.inf, "repeats": True}])) == 1
    assert len(_gpu_parity.missed([row | {"share_of_bar": 0.1, "repeats": False}])) == 1


def test_copies_side_by_side_are_what_one_is() -> None:
    """The oracle of large systems, whose truth is not computed, against the truth of one that can be."""
    one = structure("Si-8")
    exact = _gpu_parity.references({"one": one, "eight": one.repeat(2)})
    differences = _gpu_parity.apart(_gpu_parity.repeated(exact["one"], 2).prediction, exact["eight"].prediction)
    assert max(differences.values()) < 1e-12


def test_results_of_other_parts_and_systems_stay_until_versions_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_report, "RESULTS", tmp_path)
    _gpu_report.write({"speed": [{"system": "Si-8", "md_ms": 1.0}, {"system": "Si-64", "md_ms": 2.0}]}, DEVICE)
    path = _gpu_report.write({"memory": [{"system": "Si-8"}], "speed": [{"system": "Si-8", "md_ms": 3.0}]}, DEVICE)
    assert path == tmp_path / "gpu-nvidia-h100-80gb-hbm3.json"
    found = _report.read_result(path.stem)
    assert found is not None
    assert {(r["part"], r["system"], r.get("md_ms")) for r in found["rows"]} == {
        ("speed", "Si-64", 2.0), ("memory", "Si-8", None), ("speed", "Si-8", 3.0)
    }  # fmt: skip
    assert all(row["date"] and row["command"] for row in found["rows"])
    _gpu_report.write({"memory": [{"system": "Si-8"}]}, {**DEVICE, "triton": "4.0"})
    found = _report.read_result(path.stem)
    assert found is not None
    assert [row["part"] for row in found["rows"]] == ["memory"]


def test_steps_of_all_sizes_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        {"system": "Si-8", "atoms": 8, "md_ms": 0.5, "md_eager_ms": 2.0},
        {"system": "Si-64", "atoms": 64, "missed": ""},
    ]
    rows.append({"system": "LiMnO2-1000", "atoms": 1000, "md_ms": 1.4, "bar_ms": 1.5})
    assert _gpu_report.plot(tmp_path / "plot.png", "a GPU", rows)
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert not _gpu_report.plot(tmp_path / "nothing.png", "a GPU", rows[1:2])


def test_systems_are_named_by_their_atoms() -> None:
    assert [len(structure(name)) for name in ("LiMnO2-8", "Si-64", "MgO-216")] == [8, 64, 216]
    assert repeats_of("Si-1000000") == 50
    for name in ("Si-9", "Cu-8", "Si", "Si-0"):
        with pytest.raises(SystemExit, match="unknown system"):
            repeats_of(name)


def test_nothing_is_recorded_while_capture_is_off() -> None:
    from ase_fastchgnet.evaluation import captured

    shipped = captured.LARGEST
    with capture(False):
        assert captured.LARGEST == 0
    assert shipped == captured.LARGEST > 0


def test_times_of_forward_kernels_are_predicted_for_all_blocks_of_an_h200() -> None:
    graph, weights = build_batch([structure("MgO-8")], Cutoffs()), pack(load_checkpoint("0.3.0"), torch.float32, "cpu")
    found = _gpu_profile.predictions(gated_ops(graph, weights), weights, KNOWN["H200"], lambda shape: DEFAULT_TILE)
    assert found.keys() == {"message_forward_kernel", "update_forward_kernel"}
    launches = {"message_forward_kernel": 7, "update_forward_kernel": 2}  # of a system this small, all that takes time
    for kernel, n in launches.items():
        least, expected = found[kernel]["model_least_us"], found[kernel]["model_us"]
        assert n * 1e6 * KNOWN["H200"].launch_seconds < least <= expected < 20 * least


def test_the_floor_of_a_kernel_is_its_bytes_over_the_rate_of_memory() -> None:
    spent = _gpu_profile.Spent(launches=3, microseconds=50.0)
    row = _gpu_profile.floor(48_000_000, spent, KNOWN["H200"])
    assert row == {"moved_bytes": 48_000_000, "floor_us": pytest.approx(10.0), "times_floor": pytest.approx(5.0)}
    assert _gpu_profile.floor(None, spent, KNOWN["H200"]) == {}


def test_a_worker_that_compiles_runs_each_choice() -> None:
    assert _gpu_tuner.run_once("Si-8", 0, "cpu", [64, 128]) == 2
