"""Replicas at several temperatures are the runs of md, side by side."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read

from ase_fastchgnet import DynamicsError, FastCHGNet, MDRun, Thermo, md, md_replicas
from tests.elastic_crystal import salt

CRYSTAL = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
FILES = ("trajectory.extxyz", "thermo.csv", "final.extxyz")


@pytest.mark.parametrize("ensemble", ["nvt-bussi", "npt-mtk"])
def test_replicas_are_the_runs_of_md(ensemble: str) -> None:
    """In float64, where rounding that differs from batch to batch has no time to grow."""
    temperatures = [300, 900, 600]
    options: dict[str, Any] = {"steps": 8, "ensemble": ensemble, "timestep": 2, "log_interval": 1}
    runs = md_replicas(CRYSTAL, temperatures, FastCHGNet(dtype="float64"), seed=4, **options)
    for number, (run, temperature) in enumerate(zip(runs, temperatures, strict=True)):
        alone = md(CRYSTAL, FastCHGNet(dtype="float64"), temperature=temperature, seed=4 + number, **options)
        assert isinstance(run, MDRun)
        np.testing.assert_allclose(run.structure.positions, alone.structure.positions, rtol=0, atol=1e-9)
        np.testing.assert_allclose(run.structure.cell, alone.structure.cell, rtol=0, atol=1e-9)
        np.testing.assert_allclose(run.thermo.temperature, alone.thermo.temperature, rtol=0, atol=1e-5)
        np.testing.assert_allclose(run.structure.get_forces(), alone.structure.get_forces(), rtol=0, atol=1e-8)
        assert run.thermo.temperature[0] == pytest.approx(temperature)


def test_each_replica_has_a_folder_and_can_be_resumed_to_the_last_bit(tmp_path: Path) -> None:
    """All have stopped at the same step, so that every batch is what it would have been."""
    options: dict[str, Any] = {"timestep": 2, "trajectory_interval": 3, "log_interval": 1, "checkpoint_interval": 4}
    md_replicas(CRYSTAL, [300, 450.5], steps=9, out=tmp_path / "parts", **options)
    runs = md_replicas(CRYSTAL, [300, 450.5], steps=17, out=tmp_path / "parts", resume=True, **options)
    md_replicas(CRYSTAL, [300, 450.5], steps=17, out=tmp_path / "whole", **options)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["300K", "450.5K"]
    for run, name in zip(runs, ("300K", "450.5K"), strict=True):
        for file in FILES:
            assert (tmp_path / "parts" / name / file).read_bytes() == (tmp_path / "whole" / name / file).read_bytes()
        assert isinstance(run, MDRun)
        assert run.trajectory == tmp_path / "parts" / name / "trajectory.extxyz"
        assert len(run.frames()) == 6


def test_a_run_of_md_can_go_on_as_a_replica(tmp_path: Path) -> None:
    """The checkpoint says whose numbers they are: CHGNet's, through whatever calculator."""
    md(CRYSTAL, steps=4, temperature=500, out=tmp_path / "500K", trajectory_format="traj")
    (run,) = md_replicas(CRYSTAL, [500], steps=12, out=tmp_path, resume=True, trajectory_format="traj")
    assert isinstance(run, MDRun)
    assert run.n_steps == 12
    frame: Any = read(tmp_path / "500K" / "trajectory.traj", -1)
    assert frame.calc.parameters["model_sha256"] == FastCHGNet().todict()["model_sha256"]
    with pytest.raises(ValueError, match="what differs: calculator"):
        md_replicas(CRYSTAL, [500], FastCHGNet("0.2.0"), steps=12, out=tmp_path, resume=True, trajectory_format="traj")


def test_a_replica_that_blows_up_leaves_the_others_alone(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "ensemble": "nvt-langevin",
        "thermostat_time": 20,
        "max_temperature": 1500,
        "timestep": 2,
    }
    good, bad, also_good = md_replicas(CRYSTAL, [200, 1400, 250], steps=40, out=tmp_path, **options)
    assert isinstance(bad, DynamicsError)
    assert "limit 1500 K" in str(bad)
    assert (tmp_path / "1400K" / "last_good.extxyz").exists()
    for run in good, also_good:
        assert isinstance(run, MDRun)
        assert run.thermo.step[-1] == run.n_steps == 40
        assert (run.thermo.temperature < 900).all()


def test_progress_shows_the_slowest_replica_and_all_temperatures(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="ase_fastchgnet"):
        runs = md_replicas(CRYSTAL, [300, 600], steps=5, log_interval=1)
    last = [record.message for record in caplog.records if record.message.startswith("MD at 2")][-1]
    shown = " ".join(f"{run.thermo.temperature[-1]:.0f}" for run in runs if isinstance(run, MDRun))
    assert last.startswith(f"MD at 2 temperatures: 5/5  {shown} K  ")
    assert last.endswith("ns/day each")


def test_bad_input_stops_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="each may appear once"):
        md_replicas(CRYSTAL, [300, 300.0], steps=1)
    with pytest.raises(ValueError, match="needs a temperature"):
        md_replicas(CRYSTAL, [300, 0], steps=1)
    with pytest.raises(ValueError, match="ensemble='nvt' is not one of"):
        md_replicas(CRYSTAL, [300], steps=1, ensemble="nvt", out=tmp_path)
    assert not list(tmp_path.iterdir())
    md_replicas(salt(), [300], steps=1, out=tmp_path)
    with pytest.raises(FileExistsError, match="checkpoint"):
        md_replicas(salt(), [300], steps=1, out=tmp_path)
    assert len(Thermo.read(tmp_path / "300K" / "thermo.csv").step) == 1
