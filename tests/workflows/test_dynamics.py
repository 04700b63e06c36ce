"""What md gives back and leaves behind, and how it stops when a run blows up."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.mixing import SumCalculator
from ase.io import read

from ase_fastchgnet import DynamicsError, FastCHGNet, Thermo, evaluate, md
from tests.elastic_crystal import ElasticCrystal, salt


def quick(structure: Any = None, **options: Any) -> Any:
    """A short run of the elastic crystal."""
    structure = salt() if structure is None else structure
    return md(
        structure,
        ElasticCrystal(salt(2) if len(structure) == 64 else salt()),
        **{"steps": 20, "temperature": 300, "timestep": 2} | options,
    )


def test_log_and_trajectory_are_those_of_the_run() -> None:
    """Energies and forces of the frames are the model's, temperature and pressure follow from velocities and stress."""
    start = bulk("NaCl", "rocksalt", a=5.7, cubic=True)
    run = md(
        start,
        steps=12,
        temperature=500,
        timestep=2,
        log_interval=3,
        trajectory_interval=6,
        ensemble="npt-mtk",
        pressure=1,
    )
    thermo, frames = run.thermo, run.frames()
    assert thermo.step.tolist() == [0, 3, 6, 9, 12]
    assert thermo.time.tolist() == [0, 6, 12, 18, 24]
    assert [frame.info["step"] for frame in frames] == [0, 6, 12]
    assert [frame.info["time_fs"] for frame in frames] == [0, 12, 24]
    assert thermo.pressure is not None
    assert thermo.volume is not None
    for row, frame, prediction in zip((0, 2, 4), frames, evaluate(frames, dtype="float64"), strict=True):
        # float32: energies of some 30 eV, forces of up to 1 eV/Å
        assert thermo.potential[row] == frame.get_potential_energy() == pytest.approx(prediction.energy, abs=2e-5)
        np.testing.assert_allclose(frame.get_forces(), prediction.forces, atol=2e-5)
        np.testing.assert_allclose(frame.get_magnetic_moments(), prediction.magmoms, atol=1e-5)
        momenta, masses = frame.get_momenta(), frame.get_masses()
        kinetic = (momenta**2 / masses[:, None]).sum() / 2
        assert thermo.kinetic[row] == pytest.approx(kinetic, rel=1e-12)
        assert thermo.temperature[row] == pytest.approx(2 * kinetic / (3 * len(start) * units.kB), rel=1e-12)
        assert thermo.volume[row] == pytest.approx(frame.get_volume(), rel=1e-12)
        assert prediction.stress is not None
        pressure = 2 * kinetic / (3 * frame.get_volume()) - prediction.stress[:3].mean()
        assert thermo.pressure[row] == pytest.approx(pressure / units.GPa, abs=1e-3)
    np.testing.assert_array_equal(run.structure.positions, frames[-1].positions)
    np.testing.assert_array_equal(run.structure.get_momenta(), frames[-1].get_momenta())
    assert run.structure.get_potential_energy() == thermo.potential[-1]
    assert start.calc is None
    assert not start.has("momenta")


@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
def test_files_hold_what_a_run_in_memory_returns(tmp_path: Path, suffix: Any) -> None:
    in_memory = quick(steps=25)
    on_disk = quick(steps=25, out=tmp_path / "a" / "run", trajectory_format=suffix)
    folder = tmp_path / "a" / "run"
    names = {path.name for path in folder.iterdir()}
    assert names == {f"trajectory.{suffix}", "thermo.csv", "checkpoint.npz", "final.extxyz"}
    assert on_disk.trajectory == folder / f"trajectory.{suffix}"
    assert in_memory.trajectory is None
    decimals = 1e-8 if suffix == "extxyz" else 0.0
    assert len(on_disk.frames()) == len(in_memory.frames()) == 3
    for mine, theirs in zip(on_disk.frames(), in_memory.frames(), strict=True):
        np.testing.assert_allclose(mine.positions, theirs.positions, rtol=0, atol=decimals)
        np.testing.assert_allclose(mine.get_momenta(), theirs.get_momenta(), rtol=0, atol=decimals)
        np.testing.assert_allclose(mine.get_forces(), theirs.get_forces(), rtol=0, atol=decimals)
        assert mine.get_potential_energy() == theirs.get_potential_energy()
        assert mine.info["time_fs"] == theirs.info["time_fs"]
    read_back = Thermo.read(folder / "thermo.csv")
    for name in ("step", "time", "temperature", "potential", "kinetic", "conserved", "pressure"):
        np.testing.assert_array_equal(getattr(read_back, name), getattr(in_memory.thermo, name))
        np.testing.assert_array_equal(getattr(on_disk.thermo, name), getattr(in_memory.thermo, name))
    final = read(folder / "final.extxyz")
    assert isinstance(final, Atoms)
    assert final.info["step"] == 25
    np.testing.assert_allclose(final.positions, in_memory.structure.positions, rtol=0, atol=1e-8)


def test_the_log_has_the_columns_that_the_ensemble_has() -> None:
    npt = quick(ensemble="npt-mtk").thermo
    assert npt.conserved is not None
    assert npt.volume is not None
    assert npt.pressure is not None
    langevin = quick(ensemble="nvt-langevin").thermo
    assert langevin.conserved is None
    assert langevin.volume is None
    assert langevin.pressure is not None
    molecule = Atoms("N2", positions=[[0, 0, 0], [0, 0, 1.1]])
    assert md(molecule, EMT(), steps=2, temperature=300, log_interval=1).thermo.pressure is None


def test_velocities_are_drawn_kept_or_zero() -> None:
    def start(structure: Atoms, **options: Any) -> Atoms:
        first: Atoms = quick(structure, steps=0, **options).structure
        return first

    drawn = start(salt(2))
    assert drawn.get_temperature() == pytest.approx(300, rel=1e-12)
    np.testing.assert_allclose(drawn.get_momenta().sum(axis=0), 0, atol=1e-12)
    components = drawn.get_velocities() * np.sqrt(drawn.get_masses())[:, None]
    assert components.std() == pytest.approx(np.sqrt(units.kB * 300), rel=1e-2)
    np.testing.assert_array_equal(drawn.get_momenta(), start(salt(2)).get_momenta())
    assert not np.array_equal(drawn.get_momenta(), start(salt(2), seed=1).get_momenta())

    moving = salt()
    moving.set_momenta(np.random.default_rng(0).normal(size=(8, 3)))
    np.testing.assert_array_equal(start(moving).get_momenta(), moving.get_momenta())
    assert start(moving, initial_temperature=50).get_temperature() == pytest.approx(50)
    assert not start(moving, initial_temperature=0, ensemble="nve").get_momenta().any()
    resting = salt()
    resting.set_momenta(np.zeros((8, 3)))
    assert start(resting).get_temperature() == pytest.approx(300)


def test_a_pymatgen_structure_comes_back_as_one() -> None:
    core = pytest.importorskip("pymatgen.core")
    structure = core.Structure(core.Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    run = md(structure, FastCHGNet(), steps=2, temperature=300)
    assert type(run.structure) is core.Structure
    assert [site.specie.symbol for site in run.structure] == ["Mg", "O"]
    assert 0 < max(a.distance(b) for a, b in zip(run.structure, structure, strict=True)) < 0.1
    assert "magmom" in run.structure.site_properties
    assert isinstance(run.frames()[0], Atoms)


def test_any_calculator_will_do() -> None:
    """A sum, as with a dispersion correction: twice the spring, and no free energy."""
    twice = SumCalculator([ElasticCrystal(salt()), ElasticCrystal(salt())])
    run = md(salt(), twice, steps=10, ensemble="nvt-nose-hoover", temperature=300, log_interval=1)
    stiff = md(
        salt(), ElasticCrystal(salt(), k=8.0), steps=10, ensemble="nvt-nose-hoover", temperature=300, log_interval=1
    )
    np.testing.assert_allclose(run.structure.positions, stiff.structure.positions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.thermo.conserved, stiff.thermo.conserved, rtol=0, atol=1e-12)


def test_each_step_is_evaluated_once() -> None:
    for ensemble, pressure in ("nvt-bussi", 0), ("nvt-nose-hoover", 0), ("nvt-langevin-baoab", 0), ("npt-mtk", 1):
        calculator = ElasticCrystal(salt())
        md(salt(), calculator, steps=15, temperature=300, ensemble=ensemble, pressure=pressure, log_interval=1)
        assert calculator.evaluations == 16


def test_leftovers_of_a_cif_are_not_carried_along(tmp_path: Path) -> None:
    salt().write(tmp_path / "salt.cif")
    structure = read(tmp_path / "salt.cif")
    assert isinstance(structure, Atoms)
    assert "spacegroup" in structure.info
    run = quick(structure, steps=1, out=tmp_path / "out", trajectory_format="traj")
    assert set(run.frames()[0].info) == {"step", "time_fs"}
    assert "spacegroup" in structure.info


def test_conserved_energy_drifts_as_its_line_says() -> None:
    time = np.linspace(0, 2000, 9)
    rows = [[k, t, 300, -5, 1, -4 + 0.003 * t / 1000] for k, t in enumerate(time)]
    columns = ["step", "time_fs", "temperature_K", "potential_eV", "kinetic_eV", "conserved_eV"]
    thermo = Thermo.from_rows(columns, rows)
    assert thermo.drift() == pytest.approx(0.003)
    assert thermo.after(1000).time.tolist() == time[4:].tolist()
    with pytest.raises(ValueError, match="conserved energy"):
        Thermo.from_rows(columns[:-1], [row[:-1] for row in rows]).drift()


def test_the_log_can_be_plotted() -> None:
    pytest.importorskip("matplotlib")
    figure, axes = quick(ensemble="npt-mtk", log_interval=1).thermo.plot()
    assert [axis.get_ylabel().replace("\n", " ") for axis in axes] == [
        "temperature (K)",
        "energy above the start (eV)",
        "pressure (GPa)",
        "volume (Å³)",
    ]
    assert len(axes[1].get_lines()) == 3
    figure.canvas.draw()


class Faulty(ElasticCrystal):
    """Breaks after some steps."""

    def __init__(self, atoms: Atoms, wrong: Any, after: int = 12) -> None:
        super().__init__(atoms)
        self.wrong, self.after = wrong, after

    def calculate(self, *arguments: Any, **more: Any) -> None:
        super().calculate(*arguments, **more)
        if self.evaluations > self.after:
            self.wrong(self)


def raise_value_error(calculator: Faulty) -> None:
    raise ValueError("system 0: atoms 1 (Na) and 2 (Cl) are 0.0010 Å apart")


FAULTS = {
    "forces that are no numbers": lambda calculator: calculator.results["forces"].fill(np.nan),
    "an energy that is no number": lambda calculator: calculator.results.update(energy=np.nan),
    "forces beyond all bounds": lambda calculator: calculator.results.update(forces=1e6 * np.ones((8, 3))),
    "a geometry that cannot be evaluated": raise_value_error,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("ensemble", ["nve", "nvt-langevin", "nvt-nose-hoover", "npt-mtk", "npt-mtk-isotropic"])
def test_a_run_that_blows_up_stops_and_keeps_the_last_good_step(tmp_path: Path, fault: str, ensemble: str) -> None:
    good = quick(steps=11, ensemble=ensemble, trajectory_interval=1)  # the last evaluation that is sound is number 12
    with pytest.raises(DynamicsError, match="blew up") as caught:
        md(
            salt(),
            Faulty(salt(), FAULTS[fault]),
            steps=40,
            temperature=300,
            timestep=2,
            ensemble=ensemble,
            out=tmp_path,
            trajectory_interval=1,
        )
    frame = caught.value.frame
    assert frame.info["step"] == 11
    np.testing.assert_array_equal(frame.positions, good.structure.positions)
    np.testing.assert_array_equal(frame.get_momenta(), good.structure.get_momenta())
    np.testing.assert_array_equal(frame.cell, good.structure.cell)
    kept = read(tmp_path / "last_good.extxyz")
    assert isinstance(kept, Atoms)
    np.testing.assert_allclose(kept.positions, frame.positions, atol=1e-8)
    np.testing.assert_allclose(kept.get_momenta(), frame.get_momenta(), atol=1e-8)
    frames: Any = read(tmp_path / "trajectory.extxyz", ":")
    assert [frame.info["step"] for frame in frames] == list(range(12))
    assert Thermo.read(tmp_path / "thermo.csv").step.tolist() == [0, 10]


def test_a_run_that_gets_too_hot_stops() -> None:
    with pytest.raises(DynamicsError, match=r"at step \d+ the temperature is .* \(limit 250 K\)"):
        quick(ensemble="nvt-langevin", initial_temperature=100, max_temperature=250, steps=2000)


def test_a_timestep_that_is_too_long_ends_in_a_stop() -> None:
    crystal = bulk("LiF", "rocksalt", a=4.03, cubic=True)
    with pytest.raises(DynamicsError, match=r"blew up.*shorter timestep") as caught:
        md(crystal, steps=60, ensemble="nve", temperature=300, timestep=25)
    assert np.isfinite(caught.value.frame.positions).all()
    assert caught.value.frame.get_temperature() < 3000


def test_bad_input_is_refused_as_such() -> None:
    """A structure that cannot be evaluated in the first place has not blown up."""
    twins = Atoms("Na2", positions=[[0, 0, 0], [0, 0, 0]], cell=[5, 5, 5], pbc=True)
    with pytest.raises(ValueError, match="closer than") as caught:
        md(twins, FastCHGNet(), steps=1, temperature=300)
    assert not isinstance(caught.value, DynamicsError)
    with pytest.raises(ValueError, match="two atoms at least"):
        md(Atoms("Na", cell=[4, 4, 4], pbc=True), FastCHGNet(), steps=1, temperature=300)
    with pytest.raises(ValueError, match=r"cannot start: at step 0 the temperature is 300 K \(limit 200 K\)"):
        quick(max_temperature=200)
    with pytest.raises(TypeError, match=r"expected an ase\.Atoms"):
        md("POSCAR", steps=1, temperature=300)  # type: ignore[type-var]
    for name in ("log_interval", "trajectory_interval", "checkpoint_interval"):
        with pytest.raises(ValueError, match=f"{name}=0"):
            quick(**{name: 0})
    with pytest.raises(ValueError, match="trajectory_format='xyz'"):
        quick(trajectory_format="xyz")


def test_progress_is_logged_with_speed_and_temperature(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ase_fastchgnet"):
        quick(steps=30)
    lines = [record.message for record in caplog.records if record.message.startswith("MD: ")]
    assert len(lines) >= 1
    assert lines[-1].startswith("MD: 30/30  ")
    assert all(word in lines[-1] for word in (" K  ", " steps/s  ", " ns/day"))


def test_progress_can_be_told_to_a_function() -> None:
    told: list[tuple[int, float]] = []
    run = quick(steps=5, log_interval=1, progress=lambda step, kelvin: told.append((step, kelvin)))
    assert told == list(zip(range(6), run.thermo.temperature, strict=True))
