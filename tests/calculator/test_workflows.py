"""ASE's optimisers, filters and integrators, and neighbouring packages, with this calculator under them."""

from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.constraints import FixAtoms, FixSymmetry
from ase.filters import FrechetCellFilter
from ase.md import (
    MTKNPT,
    Bussi,
    IsotropicMTKNPT,
    Langevin,
    MaskedMTKNPT,
    NoseHooverChainNVT,
    VelocityVerlet,
    thermalize_momenta,
)
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.nptberendsen import NPTBerendsen
from ase.md.nvtberendsen import NVTBerendsen
from ase.mep import NEB
from ase.optimize import BFGS, FIRE, LBFGS, BFGSLineSearch
from ase.optimize.optimize import Optimizer

from ase_fastchgnet import FastCHGNet

DT = 1.0 * units.fs
NVT = {"temperature_K": 300}
MTK = NVT | {"pressure_au": 0.0, "tdamp": 100 * units.fs, "pdamp": 1000 * units.fs}

Dynamics = Callable[[Atoms], MolecularDynamics]

INTEGRATORS: dict[str, Dynamics] = {
    "VelocityVerlet": lambda a: VelocityVerlet(a, DT),
    "Langevin": lambda a: Langevin(a, DT, friction=0.01 / units.fs, fixcm=False, rng=np.random.default_rng(6), **NVT),
    "LangevinBAOAB": lambda a: LangevinBAOAB(a, DT, T_tau=100 * units.fs, rng=6, **NVT),
    "LangevinBAOAB-NPT": lambda a: LangevinBAOAB(
        a, DT, T_tau=100 * units.fs, P_tau=1000 * units.fs, P_mass=5e4, externalstress=0.0, rng=6, **NVT
    ),
    "Bussi": lambda a: Bussi(a, DT, taut=100 * units.fs, rng=np.random.default_rng(6), **NVT),
    "NoseHooverChainNVT": lambda a: NoseHooverChainNVT(a, DT, tdamp=100 * units.fs, **NVT),
    "NVTBerendsen": lambda a: NVTBerendsen(a, DT, taut=100 * units.fs, **NVT),
    "NPTBerendsen": lambda a: NPTBerendsen(a, DT, pressure_au=0.0, compressibility_au=0.01, **NVT),
    "IsotropicMTKNPT": lambda a: IsotropicMTKNPT(a, DT, **MTK),
    "MTKNPT": lambda a: MTKNPT(a, DT, **MTK),
    # An array: with a tuple, as it documents, ASE 3.29's barostat does nothing (a tuple indexes otherwise in numpy).
    "MaskedMTKNPT": lambda a: MaskedMTKNPT(a, DT, mask=np.array([True, True, False]), **MTK),
}


@pytest.mark.parametrize("name", INTEGRATORS)
def test_integrator_runs(salt: Atoms, name: str, passes: Callable[[], list[str]]) -> None:
    salt.calc = FastCHGNet()
    thermalize_momenta(salt, 300, rng=np.random.default_rng(6))
    start, volume = salt.positions.copy(), salt.get_volume()
    INTEGRATORS[name](salt).run(3)
    assert 1e-3 < np.abs(salt.positions - start).max() < 0.5
    assert np.isfinite(salt.get_total_energy())
    assert (salt.get_volume() != volume) == ("NPT" in name)
    # Every step is one geometry (a barostat may look at one more), and each is computed once.
    ran = passes()
    assert ran.count("forward") == ran.count("adjoint") <= 3 * 2 + 2


def test_an_nve_step_costs_one_forward_and_one_adjoint(salt: Atoms, passes: Callable[[], list[str]]) -> None:
    salt.calc = FastCHGNet()
    dynamics = VelocityVerlet(salt, DT)
    dynamics.attach(lambda: (salt.get_potential_energy(), salt.get_stress()))  # what a logger asks for
    dynamics.run(4)
    assert passes() == ["forward", "adjoint"] * 5


def test_energy_is_conserved_in_nve(salt: Atoms) -> None:
    salt.calc = FastCHGNet(dtype="float64")
    thermalize_momenta(salt, 600, rng=np.random.default_rng(7))
    dynamics = VelocityVerlet(salt, 1 * units.fs)
    total, kinetic = [], []
    dynamics.attach(lambda: (total.append(salt.get_total_energy()), kinetic.append(salt.get_kinetic_energy())))
    dynamics.run(30)
    # Verlet's energy error is (ω dt)²/8 of what sloshes between the two forms: below 1 % for ω dt < 0.25.
    assert np.ptp(total) < 0.01 * np.ptp(kinetic)


@pytest.mark.parametrize("optimizer", [FIRE, BFGS, LBFGS, BFGSLineSearch])
def test_optimizer_lowers_the_energy(salt: Atoms, optimizer: type[Optimizer]) -> None:
    salt.calc = FastCHGNet()
    before = salt.get_potential_energy()
    optimizer(salt, logfile=None).run(fmax=0.05, steps=5)
    assert salt.get_potential_energy() < before - 1e-3


def test_cell_and_positions_relax_together(salt: Atoms) -> None:
    salt.set_cell(salt.cell.array * 1.04, scale_atoms=True)
    salt.calc = FastCHGNet()
    pressure = np.abs(salt.get_stress()).max()
    with FIRE(FrechetCellFilter(salt), logfile=None) as relaxation:
        relaxation.run(fmax=0.02, steps=60)
    assert np.abs(salt.get_stress()).max() < 0.1 * pressure
    assert salt.get_volume() / 8 == pytest.approx(5.7**3 / 8, rel=0.04)  # experiment, and PBE's usual excess


def test_constraints_work() -> None:
    salt = bulk("NaCl", "rocksalt", a=5.5, cubic=True)
    salt.positions[1, 0] += 0.1
    salt.set_constraint([FixAtoms([0])])
    salt.calc = FastCHGNet()
    BFGS(salt, logfile=None).run(steps=2)
    np.testing.assert_array_equal(salt.positions[0], 0.0)


def test_symmetry_is_kept() -> None:
    pytest.importorskip("spglib")
    salt = bulk("NaCl", "rocksalt", a=5.5, cubic=True)
    salt.set_constraint(FixSymmetry(salt))
    salt.calc = FastCHGNet()
    FIRE(FrechetCellFilter(salt), logfile=None).run(steps=2)
    assert np.ptp(salt.cell.lengths()) < 1e-10


def test_each_image_of_a_band_has_its_own_calculator() -> None:
    first = bulk("Cu", cubic=True)
    last = first.copy()
    last.positions[0] += [0.3, 0, 0]
    images = [first, *(first.copy() for _ in range(2)), last]
    for image in images:
        image.calc = FastCHGNet()
    band = NEB(images, method="improvedtangent")
    band.interpolate()
    assert band.get_forces().shape == (2 * 4, 3)


def test_sum_with_another_calculator(salt: Atoms) -> None:
    other = LennardJones(sigma=2.0, epsilon=0.01, rc=6.0)
    both = SumCalculator([FastCHGNet(), other])
    forces = FastCHGNet().get_forces(salt) + LennardJones(sigma=2.0, epsilon=0.01, rc=6.0).get_forces(salt)
    np.testing.assert_allclose(both.get_forces(salt), forces, rtol=1e-12)
    np.testing.assert_allclose(
        both.get_stress(salt), FastCHGNet().get_stress(salt) + other.get_stress(salt), rtol=1e-12
    )


@pytest.mark.filterwarnings("ignore")  # pymatgen's own
@pytest.mark.parametrize("as_class", [False, True])
def test_pymatgen_relaxes_with_it(as_class: bool) -> None:
    core = pytest.importorskip("pymatgen.core")
    structure = core.Structure.from_spacegroup("Fm-3m", core.Lattice.cubic(5.4), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])
    primitive = structure.get_primitive_structure()
    relaxed = primitive.relax(calculator=FastCHGNet if as_class else FastCHGNet(), steps=5, fmax=0.01)
    assert relaxed.volume > primitive.volume
    assert relaxed.calc.name == "fastchgnet"
