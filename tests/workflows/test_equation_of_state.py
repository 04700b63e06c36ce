"""eos: chgnet's own example, the meaning of what is fitted, minima that are not there, and what comes back."""

import csv
import json
import logging
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from pymatgen.analysis.eos import BirchMurnaghan
from pymatgen.core import Structure
from structures import STRUCTURES, scaled

from ase_fastchgnet import EquationOfState, FastCHGNet, eos, evaluate, relax
from ase_fastchgnet.workflows.equation_of_state import FILES, Kind

LIMNO2 = STRUCTURES["LiMnO2"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def salt() -> EquationOfState[Atoms]:
    return eos(bulk("NaCl", "rocksalt", a=5.5))


def test_chgnets_own_example_gives_what_chgnet_says() -> None:
    """The numbers and tolerances of chgnet 0.4.2's test of its EquationOfState, with its options."""
    found = eos(LIMNO2, max_strain=0.1, points=11, fmax=0.1, optimizer="FIRE")
    assert found.bulk_modulus * units.GPa == pytest.approx(0.6481, rel=1e-4)
    assert found.bulk_modulus == pytest.approx(103.845, rel=1e-4)
    assert 1 / (found.bulk_modulus * units.GPa) == pytest.approx(1.5428, rel=1e-4)
    assert 1 / found.bulk_modulus == pytest.approx(0.0096296, rel=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # chgnet's and its dependencies' own
def test_stock_run_beside_it_gives_the_same() -> None:
    from chgnet.model.dynamics import EquationOfState as Stock

    stock = Stock(use_device="cpu")
    stock.fit(LIMNO2)
    found = eos(LIMNO2, max_strain=0.1, points=11, fmax=0.1, optimizer="FIRE")
    assert found.bulk_modulus == pytest.approx(stock.get_bulk_modulus(unit="GPa"), rel=1e-4)


def test_relaxed_tightly_the_same_example_is_softer() -> None:
    """fmax=0.1 leaves 2 % in the modulus: what a user would be told to avoid."""
    found = eos(LIMNO2, max_strain=0.1, points=7)
    assert 0.96 < found.bulk_modulus / 103.845 < 0.99


@pytest.mark.parametrize("kind", get_args(Kind))
def test_what_is_fitted_is_what_its_name_says(kind: Kind, salt: EquationOfState[Atoms]) -> None:
    """V₀, B₀ = V d²E/dV², B₀' = dB/dP there, by differences of the fitted curve."""
    found = eos(salt.structure, relax=False, relax_ions=False, kind=kind)
    assert found.kind == kind
    step = 0.002 * found.volume
    volumes = found.volume + step * np.arange(-3, 4)
    e = found.energy_at(volumes)
    assert e[3] == pytest.approx(found.energy, abs=1e-9)
    pressure = -(e[2:] - e[:-2]) / (2 * step)  # at the five inner volumes
    assert pressure[2] == pytest.approx(0, abs=1e-6)
    modulus = volumes[1:-1] * (e[2:] - 2 * e[1:-1] + e[:-2]) / step**2
    assert modulus[2] / units.GPa == pytest.approx(found.bulk_modulus, rel=1e-3)
    derivative = (modulus[3] - modulus[1]) / (pressure[3] - pressure[1])
    assert derivative == pytest.approx(found.bulk_modulus_derivative, rel=2e-2)


def test_pymatgen_fits_the_same(salt: EquationOfState[Atoms]) -> None:
    fit = BirchMurnaghan(salt.volumes, salt.energies)
    fit.fit()
    assert salt.volume == pytest.approx(fit.v0, rel=1e-5)
    assert salt.bulk_modulus == pytest.approx(float(fit.b0_GPa), rel=1e-4)
    assert salt.bulk_modulus_derivative == pytest.approx(float(fit.b1), rel=1e-3)


def test_the_points_are_energies_of_the_strained_crystal(salt: EquationOfState[Atoms]) -> None:
    scale = (salt.volumes / salt.structure.get_volume()) ** (1 / 3)
    np.testing.assert_allclose(scale, np.linspace(0.97, 1.03, 11), atol=1e-9)
    predictions = evaluate([scaled(salt.structure, factor) for factor in scale])
    np.testing.assert_allclose(salt.energies, [one.energy for one in predictions], atol=2e-5)  # float32
    np.testing.assert_allclose(salt.residual, np.std(salt.energies - salt.energy_at(salt.volumes)) / 2, rtol=0.1)


def test_the_slope_is_the_pressure_that_the_stress_tells(salt: EquationOfState[Atoms]) -> None:
    pressure = [-frame.get_stress()[:3].mean() for frame in salt.frames]
    energies = [frame.get_potential_energy() for frame in salt.frames]
    between = (salt.volumes[1:] + salt.volumes[:-1]) / 2
    slope = -np.diff(energies) / np.diff(salt.volumes)
    # Straight between neighbouring volumes; CHGNet's pressure bends by some 0.2 GPa there
    np.testing.assert_allclose(slope, np.interp(between, salt.volumes, pressure), atol=0.2 * units.GPa)


def test_twice_the_cell_has_twice_the_volume_and_the_same_modulus(salt: EquationOfState[Atoms]) -> None:
    found = eos(salt.structure.repeat((1, 1, 2)))
    assert found.volume == pytest.approx(2 * salt.volume, rel=2e-4)
    assert found.energy == pytest.approx(2 * salt.energy, abs=1e-4)
    assert found.bulk_modulus == pytest.approx(salt.bulk_modulus, rel=5e-3)
    assert found.residual == pytest.approx(salt.residual, rel=0.1)  # per atom


def test_atoms_that_may_relax_lower_the_energy_at_every_volume() -> None:
    relaxed = relax(LIMNO2, FastCHGNet(), fmax=0.01, optimizer="LBFGS").structure
    free, clamped = (
        eos(relaxed, relax=False, max_strain=0.02, points=5, relax_ions=relax_ions) for relax_ions in (True, False)
    )
    np.testing.assert_allclose(free.volumes, clamped.volumes)
    assert np.all(free.energies <= clamped.energies + 1e-5)
    assert free.energies[0] < clamped.energies[0] - 1e-3
    assert free.bulk_modulus < clamped.bulk_modulus
    for frame in free.frames:
        assert np.linalg.norm(frame.get_forces(), axis=1).max() < 0.01


def test_the_structure_given_stays_and_the_relaxed_one_comes_back(salt: EquationOfState[Atoms]) -> None:
    given = bulk("NaCl", "rocksalt", a=5.5)
    before = given.copy()
    found = eos(given, points=5)
    assert given == before
    assert np.abs(found.structure.get_stress()).max() < 0.01
    np.testing.assert_allclose(found.structure.get_volume(), salt.structure.get_volume())


def test_a_pymatgen_structure_comes_back_as_one() -> None:
    given = Structure.from_spacegroup("Fm-3m", np.eye(3) * 5.6, ["Na+", "Cl-"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    found = eos(given, points=5, relax_ions=False)
    assert isinstance(found.structure, Structure)
    assert found.structure.species == given.species


def test_any_calculator_will_do() -> None:
    emt = EMT()  # type: ignore[no-untyped-call]
    found = eos(bulk("Cu", a=3.5), emt, max_strain=0.01)
    below, above = (scaled(found.structure, factor) for factor in (0.9995, 1.0005))
    rise = (emt.get_stress(above) - emt.get_stress(below))[:3].mean()  # of the tension, over a strain of 0.1 %
    assert found.bulk_modulus == pytest.approx(rise / (3 * 0.001) / units.GPa, rel=0.01)


@pytest.mark.parametrize("a", [5.0, 6.4])
def test_a_minimum_outside_the_volumes_is_refused(a: float) -> None:
    with pytest.raises(ValueError, match=r"no minimum between .* relax the structure first"):
        eos(bulk("NaCl", "rocksalt", a=a), relax=False, relax_ions=False)


def test_forces_that_are_left_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        eos(LIMNO2, relax=False, points=5)
    assert "not at a minimum" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "parabola"}, "expected one of 'birchmurnaghan', 'vinet'"),
        ({"points": 4}, "expected 5 or more"),
        ({"max_strain": 0.0}, "between 0 and 0.5"),
        ({"max_strain": 3.0}, "between 0 and 0.5"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        eos(bulk("Si"), **options)


def test_a_molecule_has_no_volume() -> None:
    with pytest.raises(ValueError, match="needs a crystal, periodic in three directions"):
        eos(molecule("H2O"))


def test_what_is_written_says_the_same(salt: EquationOfState[Atoms], tmp_path: Path) -> None:
    paths = salt.write(tmp_path / "new")
    assert [path.name for path in paths] == list(FILES)
    values = json.loads(paths[0].read_text())
    assert values["bulk_modulus_GPa"] == salt.bulk_modulus
    assert values["volume_A3"] == salt.volume
    rows = list(csv.DictReader(paths[1].read_text().splitlines()))
    assert [float(row["energy_eV"]) for row in rows] == pytest.approx(salt.energies.tolist(), abs=1e-7)
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    assert f"{salt.bulk_modulus:.2f} GPa" in str(salt)
