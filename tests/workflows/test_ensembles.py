"""Every ensemble is the ASE integrator it says, given what it should be given, and behaves as its name promises."""

from typing import Any

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.nptberendsen import Inhomogeneous_NPTBerendsen, NPTBerendsen
from ase.md.nvtberendsen import NVTBerendsen
from ase.md.verlet import VelocityVerlet

from ase_fastchgnet import FastCHGNet, md
from ase_fastchgnet.workflows.ensembles import ENSEMBLES, Settings
from tests.elastic_crystal import ElasticCrystal, salt

FS, GPA = units.fs, units.GPa
# As a user of ASE would write them: 300 K, 5 GPa, thermostat 50 fs, barostat 400 fs, bulk modulus 140 GPa.
BY_HAND: dict[str, tuple[type[MolecularDynamics], dict[str, Any]]] = {
    "nve": (VelocityVerlet, {}),
    "nvt-bussi": (Bussi, {"temperature_K": 300, "taut": 50 * FS}),
    "nvt-langevin": (Langevin, {"temperature_K": 300, "friction": 1 / (50 * FS), "fixcm": False}),
    "nvt-langevin-baoab": (LangevinBAOAB, {"temperature_K": 300, "T_tau": 50 * FS}),
    "nvt-nose-hoover": (NoseHooverChainNVT, {"temperature_K": 300, "tdamp": 50 * FS}),
    "nvt-berendsen": (NVTBerendsen, {"temperature_K": 300, "taut": 50 * FS}),
    "npt-mtk": (
        MTKNPT,
        {"temperature_K": 300, "pressure_au": 5 * GPA, "tdamp": 50 * FS, "pdamp": 400 * FS},
    ),
    "npt-mtk-isotropic": (
        IsotropicMTKNPT,
        {"temperature_K": 300, "pressure_au": 5 * GPA, "tdamp": 50 * FS, "pdamp": 400 * FS},
    ),
    "npt-berendsen": (
        Inhomogeneous_NPTBerendsen,
        {
            "temperature_K": 300,
            "pressure_au": 5 * GPA,
            "taut": 50 * FS,
            "taup": 400 * FS,
            "compressibility_au": 1 / (140 * GPA),
        },
    ),
    "npt-berendsen-isotropic": (
        NPTBerendsen,
        {
            "temperature_K": 300,
            "pressure_au": 5 * GPA,
            "taut": 50 * FS,
            "taup": 400 * FS,
            "compressibility_au": 1 / (140 * GPA),
        },
    ),
}
NPT = [name for name in BY_HAND if name.startswith("npt")]
CONSERVING = ["nve", "nvt-bussi", "nvt-nose-hoover", "npt-mtk", "npt-mtk-isotropic"]


class WithFreeEnergy(ElasticCrystal):
    """ASE's conserved energies ask for the free energy, which is the energy here."""

    implemented_properties = [*ElasticCrystal.implemented_properties, "free_energy"]  # noqa: RUF012

    def calculate(self, *arguments: Any, **more: Any) -> None:
        super().calculate(*arguments, **more)
        self.results["free_energy"] = self.results["energy"]


def options(name: str) -> dict[str, Any]:
    """What `md` takes for the same as BY_HAND."""
    npt = {"pressure": 5.0, "barostat_time": 400.0} if name in NPT else {}
    modulus = {"bulk_modulus": 140.0} if "berendsen" in name and name in NPT else {}
    return {"ensemble": name, "temperature": 300.0, "thermostat_time": 50.0, "timestep": 2.0, **npt, **modulus}


def test_all_ensembles_are_listed_here() -> None:
    assert list(BY_HAND) == list(ENSEMBLES)


@pytest.mark.parametrize("name", BY_HAND)
def test_a_run_is_that_of_the_integrator_used_by_hand(name: str) -> None:
    start = salt()
    start.set_momenta(np.random.default_rng(1).normal(size=(len(start), 3)))
    found = md(start, ElasticCrystal(start), steps=12, seed=7, **options(name)).structure

    atoms = start.copy()
    atoms.calc = ElasticCrystal(start)
    integrator, arguments = BY_HAND[name]
    if name in ("nvt-bussi", "nvt-langevin", "nvt-langevin-baoab"):
        arguments = arguments | {"rng": np.random.default_rng(7)}
    by_hand = integrator(atoms, timestep=2 * FS, **arguments)
    by_hand.run(12)
    assert type(by_hand) is ENSEMBLES[name].integrator
    np.testing.assert_array_equal(found.positions, atoms.positions)
    np.testing.assert_array_equal(found.get_momenta(), atoms.get_momenta())
    np.testing.assert_array_equal(found.cell, atoms.cell)
    assert not np.array_equal(found.positions, start.positions)


@pytest.mark.parametrize("name", BY_HAND)
def test_time_constants_reach_the_integrator(name: str) -> None:
    """Another constant gives another trajectory, where the ensemble has a use for it."""

    def final(**changes: float) -> np.ndarray:
        atoms = md(salt(), ElasticCrystal(salt()), steps=6, **options(name) | changes).structure
        return np.vstack([atoms.positions, atoms.cell])

    usual = final()
    assert np.array_equal(usual, final(thermostat_time=80.0)) == (name == "nve")
    assert np.array_equal(usual, final(barostat_time=900.0)) == (name not in NPT)
    assert not np.array_equal(usual, final(timestep=1.0))


@pytest.mark.parametrize("name", BY_HAND)
def test_start_and_limit_are_those_asked_for(name: str) -> None:
    def start(seed: int, **changes: float) -> Any:
        asked = {"initial_temperature": 150.0, "seed": seed, "steps": 2, "log_interval": 1} | changes
        return md(salt(), ElasticCrystal(salt()), **options(name), **asked)  # type: ignore[arg-type]

    run = start(3, max_temperature=1000.0)
    assert run.thermo.temperature[0] == pytest.approx(150)
    assert not np.array_equal(run.structure.positions, start(4).structure.positions)
    with pytest.raises(ValueError, match=r"cannot start: at step 0 the temperature is 150 K \(limit 100 K\)"):
        start(3, max_temperature=100.0)


@pytest.mark.parametrize("name", ["nvt-bussi", "nvt-langevin", "nvt-langevin-baoab"])
def test_stochastic_thermostats_sample_the_canonical_distribution(name: str) -> None:
    """Kinetic energy: 3 N/2 kT, within four standard errors from blocks of 25 time constants; variance 3 N/2 (kT)²."""
    atoms = salt(2)
    calculator = ElasticCrystal(atoms)
    atoms.rattle(np.sqrt(units.kB * 400 / calculator.k), seed=3)  # or all atoms would swing in step
    run = md(
        atoms,
        calculator,
        steps=3000,
        ensemble=name,
        temperature=400,
        thermostat_time=20,
        timestep=4,
        log_interval=2,
    )
    kinetic = run.thermo.after(2000).kinetic / (units.kB * 400)
    freedom = 3 * len(atoms)
    blocks = kinetic[: len(kinetic) // 20 * 20].reshape(20, -1).mean(axis=1)
    error = blocks.std(ddof=1) / np.sqrt(20)
    assert kinetic.mean() == pytest.approx(freedom / 2, abs=4 * error)
    assert error < freedom / 100  # or the line above would say little
    assert kinetic.var() == pytest.approx(freedom / 2, rel=0.4)


@pytest.mark.parametrize("name", ["nvt-nose-hoover", "nvt-berendsen"])
def test_other_thermostats_bring_the_crystal_to_the_temperature(name: str) -> None:
    run = md(
        salt(2),
        ElasticCrystal(salt(2)),
        steps=800,
        ensemble=name,
        temperature=500,
        initial_temperature=100,
        thermostat_time=50,
        timestep=4,
        log_interval=1,
    )
    assert run.thermo.temperature[0] == pytest.approx(100)
    assert run.thermo.after(1200).temperature.mean() == pytest.approx(500, rel=0.03)


@pytest.mark.parametrize("name", NPT)
def test_npt_ensembles_bring_the_crystal_to_the_pressure_and_keep_what_they_promise_of_its_shape(name: str) -> None:
    start = salt(2)
    run = md(
        start,
        ElasticCrystal(start),
        steps=800,
        ensemble=name,
        temperature=200,
        pressure=3,
        thermostat_time=50,
        barostat_time=100 if "berendsen" in name else 500,
        timestep=4,
        log_interval=1,
        bulk_modulus=140 if "berendsen" in name else None,
    )
    late = run.thermo.after(1200)
    assert late.pressure is not None
    assert late.volume is not None
    assert late.pressure.mean() == pytest.approx(3, abs=0.3)
    assert late.volume.mean() == pytest.approx((1 - 3 / 140) * start.cell.volume, rel=0.01)
    strain = np.linalg.solve(start.cell.array, run.structure.cell.array)
    strain /= np.cbrt(np.linalg.det(strain))
    assert np.allclose(strain, np.eye(3), atol=1e-9) == name.endswith("isotropic")
    assert np.allclose(run.structure.cell.angles(), start.cell.angles(), atol=1e-9) == (name != "npt-mtk")


@pytest.mark.parametrize("name", CONSERVING)
def test_the_conserved_energy_is_that_of_ase(name: str) -> None:
    """Where ASE gives one; to rounding of sums of some 10 eV."""
    atoms = salt()
    atoms.calc = WithFreeEnergy(atoms)
    rng = np.random.default_rng(2)
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)))
    usual: dict[str, Any] = {"initial_temperature": None, "bulk_modulus": None, "seed": 0}
    settings = Settings(**{"pressure": 0.0, "barostat_time": 400.0, **usual, **options(name)})
    ensemble = ENSEMBLES[name]
    dynamics: Any = ensemble.build(atoms, settings, rng)
    dynamics.run(20)
    energy = atoms.get_potential_energy() + atoms.get_kinetic_energy()
    assert ensemble.bath is not None
    found = energy + ensemble.bath(dynamics)
    if name == "nvt-bussi":
        assert found == energy - dynamics.transferred_energy
    elif name != "nve":
        assert found == pytest.approx(dynamics.get_conserved_energy(), abs=1e-12)


def drift_of_ase(name: str, calculator: Calculator) -> None:
    """The criterion of ASE's tests of NoseHooverChainNVT, IsotropicMTKNPT and MTKNPT, and their system.

    ase/test/md/test_nose_hoover_chain.py: hcp copper, 16 atoms, 300 K, 10 GPa, 100 steps of 1 fs, time constants 100
    and 1000 fs; first and last value equal by numpy.isclose(…, atol=1e-3), total momentum zero by numpy.allclose.
    """
    atoms = bulk("Cu", crystalstructure="hcp", a=2.53, c=4.11).repeat(2)
    pressure = 10 if name in NPT else 0
    run = md(atoms, calculator, steps=100, ensemble=name, temperature=300, pressure=pressure, log_interval=1)
    conserved = run.thermo.conserved
    assert conserved is not None
    assert np.isclose(conserved[0], conserved[-1], atol=1e-3)
    assert np.allclose(run.structure.get_momenta().sum(axis=0), 0)
    if name != "nve":  # what is conserved is not just what would be without a bath
        assert np.ptp(conserved) < 0.2 * np.ptp(run.thermo.potential + run.thermo.kinetic)


@pytest.mark.parametrize("name", CONSERVING)
def test_the_conserved_energy_drifts_no_more_than_ase_allows(name: str) -> None:
    drift_of_ase(name, EMT())


@pytest.mark.parametrize("name", [pytest.param("npt-mtk-isotropic", marks=pytest.mark.slow), "npt-mtk"])
def test_chgnet_in_float32_conserves_as_well(name: str) -> None:
    drift_of_ase(name, FastCHGNet())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ensemble": "nvt"}, "ensemble='nvt' is not one of nve, nvt-bussi"),
        ({"ensemble": "nvt-bussi"}, "needs a temperature"),
        ({"temperature": -5}, "temperature=-5: expected"),
        ({"temperature": float("nan")}, "temperature=nan: expected"),
        ({"temperature": 300, "timestep": 0}, "timestep=0: expected a time in fs"),
        ({"temperature": 300, "pressure": 1.0}, "keeps the cell fixed; use npt-mtk, npt-mtk-isotropic, npt-berendsen"),
        ({"temperature": 300, "bulk_modulus": 50}, "it is for npt-berendsen, npt-berendsen-isotropic"),
        ({"temperature": 300, "ensemble": "npt-berendsen"}, "needs bulk_modulus"),
        ({"temperature": 300, "seed": -1}, "seed=-1"),
        ({"ensemble": "nve"}, "the atoms are at rest"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        md(salt(), EMT(), steps=1, **arguments)


def test_npt_needs_a_periodic_cell() -> None:
    slab = salt()
    slab.pbc = (True, True, False)
    with pytest.raises(ValueError, match=r"periodic in three directions; pbc is \[True, True, False\]"):
        md(slab, EMT(), steps=1, ensemble="npt-mtk", temperature=300)


@pytest.mark.parametrize("name", BY_HAND)
def test_constraints_are_kept_or_refused(name: str) -> None:
    atoms = salt()
    atoms.set_constraint(FixAtoms(indices=range(4)))
    calculator = ElasticCrystal(atoms)
    if not ENSEMBLES[name].constraints:
        with pytest.raises(ValueError, match=r"not right for a structure with constraints \(FixAtoms\).*nvt-bussi"):
            md(atoms, calculator, steps=5, **options(name))
        return
    run = md(atoms, calculator, steps=800, log_interval=1, **options(name))
    np.testing.assert_array_equal(run.structure.positions[:4], atoms.positions[:4])
    if name != "nve":  # the temperature is that of the atoms that move
        assert run.thermo.after(500).temperature.mean() == pytest.approx(300, rel=0.15)
