"""Multiple time stepping is the dynamics of the expensive forces: reversible, of second order, and conserving."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.mixing import LinearCombinationCalculator
from ase.constraints import FixAtoms

from ase_fastchgnet import FastCHGNet, md
from ase_fastchgnet.workflows.ensembles import ENSEMBLES
from tests.elastic_crystal import ElasticCrystal, salt

STIFF, SOFT = 4.0, 3.0  # eV/Å², the springs of the expensive and of the cheap crystal
IMPULSIVE = ["nve", "nvt-bussi", "nvt-langevin", "nvt-langevin-baoab"]


class Swirl(ElasticCrystal):
    """Springs of the right stiffness, and a force around the z axis that no energy has."""

    def calculate(self, *arguments: Any, **more: Any) -> None:
        super().calculate(*arguments, **more)
        away = self.results["forces"] / -self.k
        self.results["forces"] = self.results["forces"] + 0.2 * np.cross([0, 0, 1], away)


def moving(seed: int = 1) -> Atoms:
    atoms = salt()
    atoms.set_momenta(np.random.default_rng(seed).normal(size=(len(atoms), 3)))
    return atoms


def mts(structure: Atoms, cheap: Calculator | None = None, **options: Any) -> Any:
    """A run of the stiff crystal whose cheap forces are those of the soft one."""
    sites = salt(round((len(structure) / 8) ** (1 / 3)))
    usual: dict[str, Any] = {"ensemble": "nve", "steps": 40, "timestep": 2, "forces": "mts"}
    cheap = cheap or ElasticCrystal(sites, k=SOFT)
    return md(structure, ElasticCrystal(sites, k=STIFF), inner_calculator=cheap, **usual | options)


@pytest.mark.parametrize("ensemble", IMPULSIVE)
def test_with_the_same_forces_twice_a_run_is_the_same_bit_by_bit(ensemble: str) -> None:
    options: dict[str, Any] = {"ensemble": ensemble, "temperature": 300}
    found = mts(moving(), ElasticCrystal(salt(), k=STIFF), **options).structure
    plain = md(moving(), ElasticCrystal(salt(), k=STIFF), steps=40, timestep=2, **options).structure
    np.testing.assert_array_equal(found.positions, plain.positions)
    np.testing.assert_array_equal(found.get_momenta(), plain.get_momenta())


def test_with_an_impulse_at_every_step_a_run_is_velocity_verlet_of_the_expensive_forces() -> None:
    found = mts(moving(), mts_steps=1).structure
    plain = md(moving(), ElasticCrystal(salt(), k=STIFF), steps=40, timestep=2, ensemble="nve").structure
    # The same sums in another order: 40 steps of rounding, of positions of up to 6 Å.
    np.testing.assert_allclose(found.positions, plain.positions, atol=1e-12)
    np.testing.assert_allclose(found.get_momenta(), plain.get_momenta(), atol=1e-12)


@pytest.mark.parametrize("cheap", [ElasticCrystal(salt(), k=SOFT), Swirl(salt(), k=STIFF)])
def test_a_run_goes_back_to_where_it_came_from_when_velocities_are_reversed(cheap: Calculator) -> None:
    there = mts(moving(), cheap).structure
    assert np.abs(there.positions - moving().positions).max() > 0.05
    there.set_momenta(-there.get_momenta())
    back = mts(there, cheap).structure
    np.testing.assert_allclose(back.positions, moving().positions, atol=1e-11)
    np.testing.assert_allclose(back.get_momenta(), -moving().get_momenta(), atol=1e-11)


def test_the_error_falls_with_the_square_of_the_timestep() -> None:
    """Against the sines and cosines of atoms on springs, after 48 fs."""
    start = moving()
    time = 48 * units.fs
    omega = np.sqrt(STIFF / start.get_masses())[:, None]
    exact = start.positions + start.get_velocities() / omega * np.sin(omega * time)
    errors = [
        np.abs(mts(start, timestep=step, steps=round(48 / step)).structure.positions - exact).max()
        for step in (1.0, 0.5, 0.25)
    ]
    assert errors[0] < 0.02  # Å, of a way of 0.5
    # The next term of the error is by a factor of (ω k Δt)² ≲ 0.04 smaller.
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.02)


def test_momentum_is_conserved() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.set_momenta(np.random.default_rng(2).normal(size=(4, 3)))
    cheap: Any = LinearCombinationCalculator([EMT()], [0.9])
    final = md(atoms, EMT(), steps=40, timestep=2, ensemble="nve", forces="mts", inner_calculator=cheap).structure
    assert np.abs(final.get_momenta() - atoms.get_momenta()).max() > 0.1
    np.testing.assert_allclose(final.get_momenta().sum(0), atoms.get_momenta().sum(0), atol=1e-10)


def test_energy_is_conserved_though_no_energy_has_the_cheap_forces() -> None:
    """The cheap forces alone raise it fourfold; with impulses it swings, the less the smaller the steps are."""
    options: dict[str, Any] = {"steps": 1200, "timestep": 1.0, "ensemble": "nve", "log_interval": 20}
    alone = md(moving(), Swirl(salt(), k=STIFF), **options).thermo
    assert alone.conserved is not None
    assert alone.conserved[-1] > 3 * alone.conserved[0]
    swing = {}
    for step in (1.0, 0.5):
        thermo = mts(moving(), Swirl(salt(), k=STIFF), **options | {"timestep": step, "mts_steps": 4}).thermo
        swing[step] = np.ptp(thermo.conserved) / thermo.conserved[0]
    assert swing[1.0] < 0.001
    assert swing[0.5] < 0.3 * swing[1.0]


def test_the_conserved_energy_includes_what_a_thermostat_took() -> None:
    thermo = mts(moving(), ensemble="nvt-bussi", temperature=900, thermostat_time=20, steps=800, timestep=1).thermo
    assert np.ptp(thermo.potential + thermo.kinetic) > 0.6
    assert np.ptp(thermo.conserved) < 0.06


@pytest.mark.parametrize("ensemble", ["nvt-langevin", "nvt-langevin-baoab"])
def test_averages_are_those_of_the_expensive_energy(ensemble: str) -> None:
    """3 N springs hold 3/2 N k_B T. The distribution of the cheap energy would have 4/3 of it in the stiff springs."""
    start = salt(4)
    options: dict[str, Any] = {"temperature": 300, "thermostat_time": 30, "seed": 3}
    run = mts(start, ensemble=ensemble, steps=1400, timestep=2, log_interval=4, trajectory_interval=2000, **options)
    potential = run.thermo.after(400).potential.mean()
    # The energy of 1536 springs has a spread of 3.6 %; 2.4 ps are some 40 times its correlation time.
    assert potential == pytest.approx(1.5 * len(start) * units.kB * 300, rel=0.02)


def test_the_expensive_forces_are_asked_for_once_an_outer_step() -> None:
    cheap, expensive = ElasticCrystal(salt(), k=SOFT), ElasticCrystal(salt(), k=STIFF)
    md(moving(), expensive, steps=40, ensemble="nve", forces="mts", mts_steps=5, inner_calculator=cheap)
    assert expensive.evaluations == 1 + 8
    assert cheap.evaluations == 1 + 40


def test_frames_and_rows_are_those_of_the_expensive_energy_and_fall_on_its_steps() -> None:
    run = mts(moving(), steps=40, timestep=2, log_interval=10, trajectory_interval=5)
    assert run.thermo.step.tolist() == [0, 12, 24, 36]
    assert run.thermo.time.tolist() == [0, 24, 48, 72]
    assert [frame.info["step"] for frame in run.frames()] == [0, 8, 16, 24, 32, 40]
    assert run.n_steps == run.structure.info["step"] == 40
    exact: Any = ElasticCrystal(salt(), k=STIFF)
    for frame in run.frames():
        np.testing.assert_array_equal(frame.get_forces(), exact.get_forces(frame))
        assert frame.get_potential_energy() == exact.get_potential_energy(frame)


def test_held_atoms_stay_where_they_are() -> None:
    start = moving()
    start.set_constraint(FixAtoms([0, 3]))
    start.set_momenta(start.get_momenta())
    final = mts(start, ensemble="nvt-bussi", temperature=300).structure
    np.testing.assert_array_equal(final.positions[[0, 3]], start.positions[[0, 3]])
    assert np.abs(final.positions - start.positions).max(1).min(where=np.isin(range(8), [0, 3], invert=True), initial=9)
    assert not final.get_momenta()[[0, 3]].any()


def stop_at(step: int) -> Callable[[int, float], None]:
    def tell(now: int, kelvin: float) -> None:
        if now == step:
            raise InterruptedError

    return tell


@pytest.mark.parametrize("ensemble", IMPULSIVE)
def test_a_run_that_was_interrupted_goes_on_to_the_last_bit(tmp_path: Path, ensemble: str) -> None:
    options: dict[str, Any] = {
        "ensemble": ensemble,
        "temperature": 600,
        "trajectory_format": "traj",
        "trajectory_interval": 4,
        "log_interval": 4,
        "checkpoint_interval": 12,
    }
    whole = mts(salt(), out=tmp_path / "whole", **options).structure
    with pytest.raises(InterruptedError):
        mts(salt(), out=tmp_path / "parts", progress=stop_at(32), **options)
    parts = mts(salt(), out=tmp_path / "parts", resume=True, **options).structure
    for name in ("thermo.csv", "trajectory.traj", "final.extxyz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name
    np.testing.assert_array_equal(parts.positions, whole.positions)
    np.testing.assert_array_equal(parts.get_momenta(), whole.get_momenta())


def test_a_run_with_other_inner_steps_is_another_run(tmp_path: Path) -> None:
    options: dict[str, Any] = {"out": tmp_path, "steps": 8, "trajectory_interval": 4, "log_interval": 4}
    mts(moving(), **options)
    options["resume"] = True
    with pytest.raises(ValueError, match=r"what differs: mts_steps \(was 4, now 2\)"):
        mts(moving(), mts_steps=2, **options)
    with pytest.raises(ValueError, match=r"inner_calculator \(was ElasticCrystal, now Swirl\)"):
        mts(moving(), Swirl(salt()), **options)
    with pytest.raises(ValueError, match=r"mts_steps \(was 4, now None\)"):
        md(moving(), ElasticCrystal(salt()), timestep=2, ensemble="nve", **options)


def test_ensembles_that_take_no_impulses_are_refused() -> None:
    for name, ensemble in ENSEMBLES.items():
        if name not in IMPULSIVE:
            bulk_modulus = 25.0 if ensemble.by_bulk_modulus else None
            with pytest.raises(ValueError, match=f"forces='mts' does not go with ensemble '{name}'; use one of nve, "):
                mts(moving(), ensemble=name, temperature=300, bulk_modulus=bulk_modulus)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 41}, "steps=41 is no multiple of mts_steps=4; 40 and 44 are"),
        ({"mts_steps": 0}, "mts_steps=0: expected a number of steps, 1 or more"),
        ({"forces": "respa"}, "forces='respa': expected 'conservative', 'direct' or 'mts'"),
        ({"forces": None}, "inner_calculator is for forces='mts'"),
        ({"inner_calculator": None}, "ElasticCrystal has no direct forces.*as inner_calculator"),
        ({"inner_calculator": None, "forces": "direct"}, "ElasticCrystal has no direct forces"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"steps": 40, "ensemble": "nve", "forces": "mts"}
    options["inner_calculator"] = ElasticCrystal(salt())
    with pytest.raises(ValueError, match=message):
        md(moving(), ElasticCrystal(salt()), **options | changes)


def test_direct_forces_with_impulses_keep_the_energy_that_direct_forces_alone_do_not() -> None:
    crystal = bulk("NaCl", "rocksalt", a=5.64)
    options: dict[str, Any] = {"steps": 80, "timestep": 1, "temperature": 600, "ensemble": "nve", "log_interval": 4}
    exact, direct, both = (md(crystal, forces=forces, **options).thermo for forces in ("conservative", "direct", "mts"))
    swing = [float(np.ptp(run.conserved)) for run in (exact, direct, both)]  # type: ignore[arg-type]
    assert swing[1] > 10 * swing[0]
    assert swing[2] < 0.1 * swing[1]
    assert np.ptp(exact.potential) > 0.05  # eV, what atoms exchange meanwhile
    assert swing[2] < 0.02 * np.ptp(exact.potential)


def test_the_kind_of_forces_is_that_asked_for_whatever_the_calculator_has() -> None:
    crystal = bulk("NaCl", "rocksalt", a=5.64).repeat((1, 1, 2))
    crystal.rattle(0.1, seed=1)
    exact, direct = FastCHGNet(), FastCHGNet(forces="direct")
    options: dict[str, Any] = {"steps": 2, "temperature": 300, "ensemble": "nve"}
    for calculator in (None, exact, direct):
        for forces, expected in (("conservative", exact), ("direct", direct), ("mts", exact)):
            steps = {"mts_steps": 2} if forces == "mts" else {}
            frame = md(crystal, calculator, forces=forces, **options, **steps).structure  # type: ignore[arg-type]
            np.testing.assert_allclose(frame.get_forces(), expected.get_forces(frame.copy()), atol=1e-6)
    assert np.abs(exact.get_forces(crystal) - direct.get_forces(crystal)).max() > 1e-3
    assert (exact.parameters["forces"], direct.parameters["forces"]) == ("conservative", "direct")
    frame = md(crystal, direct, **options).structure
    np.testing.assert_allclose(frame.get_forces(), direct.get_forces(frame.copy()), atol=1e-6)
