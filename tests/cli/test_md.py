"""`fastchgnet md` through real processes."""

import csv
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import typer
from ase.build import bulk
from ase.io import read
from command import COMMAND, Run, environment, fastchgnet

from ase_fastchgnet import FastCHGNet, Thermo, md
from ase_fastchgnet.cli.md import Ensembles, _require_frames
from ase_fastchgnet.workflows.ensembles import ENSEMBLES

SHORT = ("-t", "600", "--timestep", "2", "--log-interval", "1", "--trajectory-interval", "4")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bulk("NaCl", "rocksalt", a=5.64).write(tmp_path / "salt.vasp")
    return tmp_path


def by_md(folder: Path, out: str, **options: Any) -> None:
    """What the command does with the options of SHORT, in this process."""
    usual = {"temperature": 600, "timestep": 2, "log_interval": 1, "trajectory_interval": 4}
    md(read(folder / "salt.vasp"), FastCHGNet(device="cpu"), out=folder / out, **usual | options)  # type: ignore[arg-type, type-var]


def assert_wrong(run: Run, code: int, *words: str) -> None:
    said = " ".join(run.stderr.replace("│", " ").split())
    assert run.code == code, said
    assert "Traceback" not in said
    assert all(word in said for word in words), said


def test_the_command_knows_all_ensembles() -> None:
    assert list(get_args(Ensembles)) == list(ENSEMBLES)


def test_both_kinds_of_forces_together_are_those_of_md(folder: Path) -> None:
    run = fastchgnet("md", "salt.vasp", *SHORT, "--steps", "8", "--forces", "mts", "--mts-steps", "2", cwd=folder)
    assert run.code == 0, run.stderr
    by_md(folder, "python", steps=8, forces="mts", mts_steps=2)
    found, expected = (Thermo.read(folder / name / "thermo.csv") for name in ("md", "python"))
    assert found.step.tolist() == [0, 2, 4, 6, 8]
    np.testing.assert_array_equal(found.potential, expected.potential)
    assert_wrong(
        fastchgnet("md", "salt.vasp", "-t", "300", "-t", "600", "--forces", "mts", cwd=folder),
        2, "'--forces': mts is for one temperature at a time",
    )  # fmt: skip


def test_a_run_is_that_of_md_and_says_what_it_was(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    options = ("-e", "npt-mtk", "--pressure", "1", "--repeat", "1x1x2", "--seed", "3", "--plot")
    run = fastchgnet("md", "salt.vasp", *SHORT, *options, "--steps", "8", "--out", "new/run", cwd=folder)
    assert run.code == 0, run.stderr
    first, *lines = run.stdout.splitlines()
    assert first == "Cl2Na2: 8 steps of 2 fs, 0.016 ps"
    assert [re.split("  +| (?=[-+\\d])", line)[0] for line in lines] == [
        "temperature",
        "potential energy",
        "pressure",
        "volume",
        "drift",
    ]
    assert re.search(r"MD: 8/8  \d+ K  [\d.]+ steps/s  [\d.]+ ns/day", run.stderr)
    assert run.stderr.splitlines()[-1] == "written: new/run"
    files = {path.name for path in (folder / "new" / "run").iterdir()}
    assert files == {"trajectory.extxyz", "thermo.csv", "checkpoint.npz", "final.extxyz", "thermo.png"}
    expected = md(
        read(folder / "salt.vasp").repeat((1, 1, 2)),  # type: ignore[union-attr]
        steps=8,
        ensemble="npt-mtk",
        pressure=1,
        temperature=600,
        timestep=2,
        seed=3,
        log_interval=1,
    ).thermo
    found = Thermo.read(folder / "new" / "run" / "thermo.csv")
    np.testing.assert_array_equal(found.temperature, expected.temperature)
    np.testing.assert_array_equal(found.volume, expected.volume)
    frames = read(folder / "new" / "run" / "trajectory.extxyz", ":")
    assert [frame.info["step"] for frame in frames] == [0, 4, 8]


def test_several_temperatures_share_a_run_and_give_an_activation_energy(folder: Path) -> None:
    run = fastchgnet(
        "md", "salt.vasp", *SHORT, "-t", "1200", "--steps", "53", "--trajectory-interval", "1", "--diffusion", "Na",
        "--skip", "8", "--out", "runs", cwd=folder,
    )  # fmt: skip
    assert run.code == 0, run.stderr
    assert [line.partition(":")[0] for line in run.stdout.splitlines() if line.startswith("runs/")] == [
        "runs/600K",
        "runs/1200K",
        "runs/600K",
        "runs/1200K",
    ]
    assert run.stdout.count("D(Na) = (") == 2
    assert re.search(r"^Eₐ = -?[\d.]+ ± [\d.]+ eV, D₀ = ", run.stdout, re.M)
    assert "warning: Na: the mean squared displacement grows as t^" in run.stderr  # too short, and it says so
    with open(folder / "runs" / "diffusion_Na.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["diffusion_cm2_s"]) > 0 for row in rows] == [True, True]
    for name in ("600K", "1200K"):
        assert (folder / "runs" / name / "msd_Na.csv").exists()
        assert len(Thermo.read(folder / "runs" / name / "thermo.csv").step) == 54


def test_an_interrupted_run_goes_on_with_resume(folder: Path) -> None:
    """Ctrl-C, then SIGKILL, at moments that nobody chose; md ends it, and the files are those of one run."""
    arguments = ["md", "salt.vasp", *SHORT, "--checkpoint-interval", "5", "--resume", "--out", "cut"]
    log = folder / "cut" / "thermo.csv"

    def stopped(how: signal.Signals) -> tuple[int, str]:
        """Exit status and last words of a run that was stopped after ten steps or more of its own."""
        before = log.read_text().count("\n") if log.exists() else 0
        process = subprocess.Popen(
            [*COMMAND, *arguments, "--steps", "100000"], cwd=folder, env=environment(), stderr=subprocess.PIPE
        )
        end = time.monotonic() + 60
        while time.monotonic() < end and not (log.exists() and log.read_text().count("\n") > before + 12):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
        return process.returncode, said.decode()

    code, said = stopped(signal.SIGINT)
    assert code == 130
    assert said.endswith("--resume goes on from the last checkpoint in cut\ninterrupted\n")
    code, _ = stopped(signal.SIGKILL)
    assert code == -signal.SIGKILL
    steps = int(Thermo.read(log).step[-1]) + 20  # some of those logged are run again
    by_md(folder, "cut", steps=steps, checkpoint_interval=5, resume=True)
    by_md(folder, "whole", steps=steps, checkpoint_interval=5)
    for name in ("thermo.csv", "trajectory.extxyz", "final.extxyz"):
        assert (folder / "cut" / name).read_bytes() == (folder / "whole" / name).read_bytes()


def test_what_is_there_is_kept(folder: Path) -> None:
    by_md(folder, "a", steps=2)
    before = {path.name: path.read_bytes() for path in (folder / "a").iterdir()}
    again = fastchgnet("md", "salt.vasp", *SHORT, "--steps", "2", "--out", "a", cwd=folder)
    assert_wrong(again, 2, "a/checkpoint.npz exists", "--resume", "--overwrite")
    different = ("--timestep", "2", "--log-interval", "1", "--trajectory-interval", "4", "-t", "601")
    other = fastchgnet("md", "salt.vasp", *different, "--steps", "4", "--out", "a", "--resume", cwd=folder)
    assert_wrong(other, 1, "a/checkpoint.npz belongs to another run", "differs: temperature (was 600, now 601.0).")
    assert {path.name: path.read_bytes() for path in (folder / "a").iterdir()} == before


def test_a_run_that_blows_up_says_so_and_keeps_the_last_good_step(folder: Path) -> None:
    run = fastchgnet("md", "salt.vasp", "-t", "600", "--timestep", "60", "--out", "hot", cwd=folder)
    assert_wrong(run, 1, "error: hot: the run blew up: at step", "choose a shorter timestep")
    assert (folder / "hot" / "last_good.extxyz").exists()


def test_a_run_too_short_for_a_diffusion_coefficient_is_not_begun() -> None:
    _require_frames(49.0)
    for intervals in (48.9, -3.0):
        with pytest.raises(typer.BadParameter, match=r"needs 50 frames.*there will be (49|0): more --steps"):
            _require_frames(intervals)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing.cif", "-t", "300"], 1, ["missing.cif: no such file"]),
        (["salt.vasp", "-t", "300", "-e", "npt"], 2, ["'npt' is not one of", "'npt-mtk'"]),
        (["salt.vasp", "-t", "300", "--repeat", "2"], 2, ["give three numbers such as 2x2x1"]),
        (["salt.vasp", "-t", "300", "--diffusion", "Li"], 2, ["there is no 'Li'"]),
    ],
)
def test_bad_input_is_named(folder: Path, arguments: list[str], code: int, words: list[str]) -> None:
    run = fastchgnet("md", *arguments, cwd=folder)
    assert_wrong(run, code, *words)
    assert run.stdout == ""
    assert not (folder / "md").exists()
