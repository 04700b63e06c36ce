"""chgnet's own tests of molecular dynamics, run through md in float32.

chgnet 0.4.2, tests/test_md.py: its runs, its logged digits (four decimals of an energy, one of a temperature), recorded
from stock chgnet, and its tolerances. Its runs start at rest. Its Nosé-Hoover runs use MelchionnaNPT, ours a chain:
other equations of motion, which agree within chgnet's tolerance over its 60 fs.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import read
from chgnet.model import CHGNet
from chgnet.model.dynamics import MolecularDynamics
from pymatgen.io.ase import AseAtomsAdaptor

from ase_fastchgnet import FastCHGNet, md
from tests.stock import quiet

ROOT = Path(__file__).parents[2]
ATMOSPHERE = 1.01325e-4  # GPa, chgnet's default


def limno2() -> Atoms:
    return bare(ROOT / "examples" / "structures" / "LiMnO2.cif")


def li9co7o16() -> Atoms:
    return bare(ROOT / "tests" / "data" / "Li9Co7O16.extxyz")


def bare(path: Path) -> Atoms:
    atoms = read(path)
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


def test_nve() -> None:
    """chgnet's test demands this very text."""
    found = our_log(limno2(), 10, ensemble="nve", timestep=1)
    np.testing.assert_allclose(found[0], [0.00, -58.9415, -58.9415, 0.0000, 0.0], atol=1e-9)
    np.testing.assert_allclose(found[1], [0.01, -58.9415, -58.9417, 0.0002, 0.2], atol=1e-9)


def test_nvt_berendsen(tmp_path: Path) -> None:
    """Against stock in the same test: the digits in chgnet's are of a cut-off that is not the model's."""
    found = our_log(limno2(), 30, ensemble="nvt-berendsen", temperature=1000, timestep=2, thermostat_time=200)
    stock = stock_log(
        limno2(), tmp_path, 30, ensemble="nvt", thermostat="Berendsen_inhomogeneous", temperature=1000, timestep=2
    )
    np.testing.assert_allclose(found, stock, rtol=2.1e-3, atol=1e-8)
    assert found[-1, -1] > 40


def test_npt_berendsen() -> None:
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
    recorded = [
        [0.00, -58.9415, -58.9415, 0.0000, 0.0],
        [0.02, -58.9407, -58.9423, 0.0016, 1.6],
        [0.04, -58.9310, -58.9415, 0.0105, 10.1],
        [0.06, -58.8819, -58.9351, 0.0495, 47.9],
    ]
    np.testing.assert_allclose(found, recorded, rtol=2.1e-3, atol=1e-8)


def test_nvt_nose_hoover() -> None:
    options = {"ensemble": "nvt-nose-hoover", "temperature": 1000, "timestep": 2, "thermostat_time": 200}
    recorded = [
        [0.00, -199.3046, -199.3046, 0.0000, 0.0],
        [0.02, -199.3047, -199.3890, 0.0844, 20.4],
        [0.04, -199.3036, -199.3510, 0.0475, 11.5],
        [0.06, -199.2999, -199.3219, 0.0221, 5.3],
    ]
    np.testing.assert_allclose(our_log(li9co7o16(), 30, **options), recorded, rtol=1e-2, atol=1e-7)


def test_npt_nose_hoover() -> None:
    """chgnet's barostat has the mass B V τ², the chain's has (N + 1) kT τ²: for the same mass, τ is longer here."""
    atoms, modulus, tau = li9co7o16(), 91.14753, 2000
    ratio = modulus * units.GPa * atoms.cell.volume / ((len(atoms) + 1) * units.kB * 1000)
    options = {"ensemble": "npt-mtk", "temperature": 1000, "timestep": 2, "thermostat_time": 200}
    options |= {"pressure": ATMOSPHERE, "barostat_time": tau * np.sqrt(ratio)}
    recorded = [
        [0.00, -199.3046, -199.3046, 0.0000, 0.0],
        [0.02, -199.3048, -199.3891, 0.0843, 20.4],
        [0.04, -199.3038, -199.3513, 0.0475, 11.5],
        [0.06, -199.3005, -199.3226, 0.0221, 5.4],
    ]
    np.testing.assert_allclose(our_log(atoms, 30, **options), recorded, rtol=1e-2, atol=1e-7)


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
