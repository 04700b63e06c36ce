"""chgnet's own tests of molecular dynamics, run through md in float32, against stock chgnet in the same test.

chgnet 0.4.2, tests/test_md.py: its runs, its logged digits (four decimals of an energy, one of a temperature) and its
tolerances. Its runs start at rest. Its Nosé-Hoover runs use MelchionnaNPT, ours a chain: other equations of motion,
which agree within chgnet's tolerance over its 60 fs.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.io import read
from chgnet.model import CHGNet
from chgnet.model.dynamics import MolecularDynamics
from pymatgen.io.ase import AseAtomsAdaptor

from ase_fastchgnet import FastCHGNet, md
from tests.stock import quiet

LIMNO2 = Path(__file__).parents[2] / "examples" / "structures" / "LiMnO2.cif"
ATMOSPHERE = 1.01325e-4  # GPa, chgnet's default


def limno2() -> Atoms:
    atoms = read(LIMNO2)
    assert isinstance(atoms, Atoms)
    return Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)


def stock_log(atoms: Atoms, folder: Path, steps: int, **options: Any) -> np.ndarray:
    """Time (ps), total, potential and kinetic energy (eV), temperature (K), as stock logs them every ten steps."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = MolecularDynamics(
            AseAtomsAdaptor.get_structure(atoms),
            model=CHGNet.load(verbose=False),
            logfile=str(folder / "stock.log"),
            loginterval=10,
            use_device="cpu",
            **options,
        )
        run.run(steps)
    return np.loadtxt(folder / "stock.log", skiprows=1)


def our_log(atoms: Atoms, steps: int, **options: Any) -> np.ndarray:
    """The same of md, with the same digits."""
    with np.errstate(divide="ignore"):  # Berendsen's thermostat divides by the temperature, and it starts at rest
        thermo = md(atoms, steps=steps, log_interval=10, initial_temperature=0, **options).thermo
    energies = [thermo.potential + thermo.kinetic, thermo.potential, thermo.kinetic]
    columns = [thermo.time / 1000, *(energy.round(4) for energy in energies), thermo.temperature.round(1)]
    return np.column_stack(columns)


def test_nve(tmp_path: Path) -> None:
    """chgnet's test demands this very text."""
    found = our_log(limno2(), 10, ensemble="nve", timestep=1)
    np.testing.assert_allclose(found[0], [0.00, -58.9415, -58.9415, 0.0000, 0.0], atol=1e-9)
    np.testing.assert_allclose(found[1], [0.01, -58.9415, -58.9417, 0.0002, 0.2], atol=1e-9)
    np.testing.assert_allclose(found, stock_log(limno2(), tmp_path, 10, ensemble="nve", timestep=1), atol=1e-9)


def test_nvt_berendsen(tmp_path: Path) -> None:
    found = our_log(limno2(), 30, ensemble="nvt-berendsen", temperature=1000, timestep=2, thermostat_time=200)
    stock = stock_log(
        limno2(), tmp_path, 30, ensemble="nvt", thermostat="Berendsen_inhomogeneous", temperature=1000, timestep=2
    )
    np.testing.assert_allclose(found, stock, rtol=2.1e-3, atol=1e-8)
    assert found[-1, -1] > 40


def test_npt_berendsen(tmp_path: Path) -> None:
    """Also against the digits recorded in chgnet's test."""
    found = our_log(
        limno2(),
        30,
        ensemble="npt-berendsen",
        temperature=1000,
        timestep=2,
        thermostat_time=200,
        barostat_time=2000,
        bulk_modulus=103.845,
        pressure=ATMOSPHERE,
    )
    recorded = np.array(
        [
            [0.00, -58.9415, -58.9415, 0.0000, 0.0],
            [0.02, -58.9407, -58.9423, 0.0016, 1.6],
            [0.04, -58.9310, -58.9415, 0.0105, 10.1],
            [0.06, -58.8819, -58.9351, 0.0495, 47.9],
        ]
    )
    np.testing.assert_allclose(found, recorded, rtol=2.1e-3, atol=1e-8)
    stock = stock_log(
        limno2(),
        tmp_path,
        30,
        ensemble="npt",
        thermostat="Berendsen_inhomogeneous",
        temperature=1000,
        timestep=2,
        bulk_modulus=103.845,
    )
    np.testing.assert_allclose(found, stock, rtol=2.1e-3, atol=1e-8)


@pytest.mark.parametrize("ensemble", ["nvt", "npt"])
def test_nose_hoover(tmp_path: Path, ensemble: str) -> None:
    """A crystal with its atoms out of place, so that there is something to see in 60 fs.

    Stock's barostat has the mass B V τ², the chain's has (N + 1) kT τ²; the same mass makes τ that much longer here.
    """
    atoms = limno2()
    atoms.rattle(0.05, seed=1)
    modulus, tau = 103.845, 2000
    ratio = modulus * units.GPa * atoms.cell.volume / ((len(atoms) + 1) * units.kB * 1000)
    npt = {"pressure": ATMOSPHERE, "barostat_time": tau * np.sqrt(ratio)} if ensemble == "npt" else {}
    name = {"nvt": "nvt-nose-hoover", "npt": "npt-mtk"}[ensemble]
    found = our_log(atoms, 30, ensemble=name, temperature=1000, timestep=2, thermostat_time=200, **npt)
    stock = stock_log(
        atoms,
        tmp_path,
        30,
        ensemble=ensemble,
        thermostat="nose-hoover",
        temperature=1000,
        timestep=2,
        bulk_modulus=modulus,
    )
    np.testing.assert_allclose(found, stock, rtol=1e-2, atol=1e-8)
    assert found[1, -1] > 200


def test_features_along_a_trajectory() -> None:
    """chgnet's test of its log of crystal features: two of them, at the start and after ten steps, to 1e-5."""
    calculator = FastCHGNet()
    features = []

    def keep(step: int, kelvin: float) -> None:
        features.append(calculator.crystal_embedding())

    with np.errstate(divide="ignore"):
        md(
            limno2(),
            calculator,
            steps=30,
            ensemble="nvt-berendsen",
            temperature=1000,
            timestep=2,
            thermostat_time=200,
            initial_temperature=0,
            progress=keep,
        )
    assert len(features) == 31
    assert features[0].shape == (64,)
    np.testing.assert_allclose(features[0][:2], [-0.002082636, -1.4285042], rtol=0, atol=1e-5)
    np.testing.assert_allclose(features[10][:2], [-0.0020592688, -1.4284436], rtol=0, atol=1e-5)
