"""elastic: symmetry, second derivatives of the energy, the equation of state, rotation, stability, and what is said.

CHGNet's energy is far from quadratic at strains of 1 %: where two ways of measuring are compared, both strain little.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from scipy.spatial.transform import Rotation
from structures import STRUCTURES

from ase_fastchgnet import Elasticity, FastCHGNet, elastic, eos, evaluate
from ase_fastchgnet.workflows.elasticity import FILES

pytest.importorskip("pymatgen.core")
from pymatgen.core import Structure
from pymatgen.core.tensors import Tensor

pytestmark = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING")  # spglib's, of how pymatgen calls it

SMALL = (-0.002, 0.002)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def calculator() -> FastCHGNet:
    return FastCHGNet(dtype="float64")


@pytest.fixture(scope="module")
def silicon(calculator: FastCHGNet) -> Elasticity[Atoms]:
    return elastic(bulk("Si", a=5.5), calculator, strains=SMALL)


@pytest.fixture(scope="module")
def magnesium(calculator: FastCHGNet) -> Elasticity[Atoms]:
    return elastic(bulk("Mg"), calculator, strains=SMALL)


@pytest.fixture(scope="module")
def limno2(calculator: FastCHGNet) -> Elasticity[Atoms]:
    """With clamped ions, and strained very little."""
    return elastic(STRUCTURES["LiMnO2"], calculator, strains=(-0.0005, 0.0005), relax_ions=False)


def strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    """`atoms` after a symmetric strain in Voigt's order and engineering shears."""
    xx, yy, zz, yz, xz, xy = np.asarray(strain) / [1, 1, 1, 2, 2, 2]
    moved = atoms.copy()
    moved.set_cell(atoms.cell.array @ [[1 + xx, xy, xz], [xy, 1 + yy, yz], [xz, yz, 1 + zz]], scale_atoms=True)
    return moved


def by_hand(atoms: Atoms, size: float = 0.0005) -> np.ndarray:
    """Constants of clamped ions (6, 6), GPa: all six strains, nothing left to symmetry."""
    cells = [strained(atoms, sign * size * row) for row in np.eye(6) for sign in (1, -1)]
    stress = np.array([p.stress for p in evaluate(cells, dtype="float64")]) / units.GPa
    return (stress[::2] - stress[1::2]) / (2 * size)


def test_a_cubic_crystal_has_three_constants(silicon: Elasticity[Atoms]) -> None:
    c = silicon.tensor
    c11, c12, c44 = c[0, 0], c[0, 1], c[3, 3]
    expected = np.zeros((6, 6))
    expected[:3, :3] = c12
    expected[range(6), range(6)] = [c11] * 3 + [c44] * 3
    np.testing.assert_allclose(c, expected, atol=1e-6)
    assert silicon.spacegroup == "Fd-3m"
    assert silicon.n_strained == 3  # the normal strain of both signs, the shear of one


def test_a_hexagonal_crystal_has_five(magnesium: Elasticity[Atoms]) -> None:
    c = magnesium.tensor
    assert c[5, 5] == pytest.approx((c[0, 0] - c[0, 1]) / 2, abs=1e-6)
    assert c[0, 0] == pytest.approx(c[1, 1], abs=1e-6)
    assert c[0, 2] == pytest.approx(c[1, 2], abs=1e-6)
    assert c[3, 3] == pytest.approx(c[4, 4], abs=1e-6)
    np.testing.assert_allclose(c[:3, 3:], 0, atol=1e-6)
    assert c[2, 2] != pytest.approx(c[0, 0], rel=0.02)


def test_all_six_strains_by_hand_give_the_same(limno2: Elasticity[Atoms], calculator: FastCHGNet) -> None:
    magnesium = elastic(bulk("Mg"), calculator, strains=(-0.0005, 0.0005), relax_ions=False)
    for found in (limno2, magnesium):
        # of 20 to 340 GPa; by hand, strain and stress differ from Green-Lagrange and Piola-Kirchhoff in second order
        np.testing.assert_allclose(found.tensor, by_hand(found.structure), atol=0.3, rtol=0.005)


def test_constants_are_second_derivatives_of_the_energy(calculator: FastCHGNet) -> None:
    found = elastic(bulk("MgO", "rocksalt", a=4.2), calculator, strains=SMALL)
    size = 0.002
    ways = {"11": [1, 0, 0, 0, 0, 0], "12": [1, 1, 0, 0, 0, 0], "44": [0, 0, 0, 1, 0, 0]}
    cells = [strained(found.structure, sign * size * np.array(way)) for way in ways.values() for sign in (1, -1)]
    energies = [p.energy for p in evaluate([found.structure, *cells], dtype="float64")]
    second = [(energies[n] - 2 * energies[0] + energies[n + 1]) / size**2 for n in (1, 3, 5)]
    c11, two_c11_two_c12, c44 = np.array(second) / found.structure.get_volume() / units.GPa
    # MgO's ions sit where symmetry holds them, so that there is nothing to relax
    measured = [c11, (two_c11_two_c12 - 2 * c11) / 2, c44]
    np.testing.assert_allclose(found.tensor[[0, 0, 3], [0, 1, 3]], measured, rtol=0.02)


@pytest.mark.parametrize("name", ["Si", "MgO"])
def test_the_bulk_modulus_is_that_of_the_equation_of_state(name: str, calculator: FastCHGNet) -> None:
    crystal = {"Si": bulk("Si"), "MgO": bulk("MgO", "rocksalt", a=4.2)}[name]
    found = elastic(crystal, calculator, strains=(-0.0005, 0.0005))
    curve = eos(found.structure, calculator, relax=False, max_strain=0.0007, points=5)
    assert found.bulk_modulus == pytest.approx((found.tensor[0, 0] + 2 * found.tensor[0, 1]) / 3, rel=1e-6)
    assert found.bulk_modulus == pytest.approx(curve.bulk_modulus, rel=0.02)


def test_ions_that_relax_make_a_crystal_softer(silicon: Elasticity[Atoms], calculator: FastCHGNet) -> None:
    clamped = elastic(silicon.structure, calculator, relax=False, relax_ions=False, strains=SMALL)
    assert silicon.tensor[3, 3] < 0.97 * clamped.tensor[3, 3]  # Kleinman's internal strain
    assert silicon.tensor[0, 0] == pytest.approx(clamped.tensor[0, 0], rel=1e-3)  # none along a cubic axis


def test_a_rotated_crystal_has_the_rotated_tensor(magnesium: Elasticity[Atoms], calculator: FastCHGNet) -> None:
    rotation = Rotation.from_euler("xyz", [0.3, -0.8, 1.1]).as_matrix()
    turned = magnesium.structure.copy()
    turned.set_cell(turned.cell.array @ rotation.T, scale_atoms=True)
    found = elastic(turned, calculator, relax=False, strains=SMALL)
    expected = Tensor.from_voigt(magnesium.tensor).rotate(rotation).voigt
    np.testing.assert_allclose(found.tensor, expected, atol=0.5)  # of 7 to 54 GPa: other strains of what is not linear
    for name, modulus in magnesium.moduli().items():
        assert found.moduli()[name] == pytest.approx(modulus, rel=0.02, abs=0.005)


def test_moduli_are_hills_averages(magnesium: Elasticity[Atoms]) -> None:
    c, s = magnesium.tensor, np.linalg.inv(magnesium.tensor)
    moduli = magnesium.moduli()
    voigt = c[:3, :3].sum() / 9
    reuss = 1 / s[:3, :3].sum()
    assert moduli["bulk_modulus_voigt_GPa"] == pytest.approx(voigt)
    assert moduli["bulk_modulus_reuss_GPa"] == pytest.approx(reuss)
    assert magnesium.bulk_modulus == pytest.approx((voigt + reuss) / 2)
    off = c[0, 1] + c[0, 2] + c[1, 2]
    shear_voigt = (np.trace(c[:3, :3]) - off + 3 * np.trace(c[3:, 3:])) / 15
    off = s[0, 1] + s[0, 2] + s[1, 2]
    shear_reuss = 15 / (4 * np.trace(s[:3, :3]) - 4 * off + 3 * np.trace(s[3:, 3:]))
    shear = magnesium.shear_modulus
    assert shear == pytest.approx((shear_voigt + shear_reuss) / 2)
    bulk_modulus = magnesium.bulk_modulus
    assert magnesium.youngs_modulus == pytest.approx(9 * bulk_modulus * shear / (3 * bulk_modulus + shear))
    assert magnesium.poisson_ratio == pytest.approx(magnesium.youngs_modulus / (2 * shear) - 1)
    assert magnesium.universal_anisotropy == pytest.approx(5 * shear_voigt / shear_reuss + voigt / reuss - 6)
    assert reuss <= voigt
    assert shear_reuss <= shear_voigt


def test_a_lattice_that_collapses_is_unstable(silicon: Elasticity[Atoms]) -> None:
    assert silicon.stable
    assert silicon.eigenvalues[0] > 0
    assert "stable: lowest eigenvalue" in str(silicon)
    found = elastic(bulk("Cu", "sc", a=2.4), EMT())  # type: ignore[no-untyped-call]
    assert not found.stable
    assert found.eigenvalues[0] < 0
    assert "UNSTABLE" in str(found)


def test_what_is_not_linear_shows_as_asymmetry(limno2: Elasticity[Atoms], calculator: FastCHGNet) -> None:
    wide = elastic(limno2.structure, calculator, relax=False, relax_ions=False)
    assert limno2.asymmetry < 1 < wide.asymmetry


def test_a_crystal_under_stress_is_named(calculator: FastCHGNet, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        elastic(bulk("Si", a=5.3), calculator, relax=False, strains=SMALL, relax_ions=False)
    assert "is under a stress of" in caplog.text


def test_float32_is_allowed_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    elastic(bulk("Si", a=5.46), FastCHGNet(), relax=False, relax_ions=False)
    assert "float64" in caplog.text


def test_calculators_are_asked_one_by_one_where_they_know_no_batches(calculator: FastCHGNet) -> None:
    class Wrapped(Calculator):
        """The same energies, from a calculator that nobody knows."""

        implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

        def calculate(self, atoms: Atoms | None = None, *others: Any) -> None:
            super().calculate(atoms, *others)
            assert atoms is not None
            self.results = {name: calculator.get_property(name, atoms) for name in self.implemented_properties}

    found, expected = (elastic(bulk("Mg"), one, strains=SMALL, fmax=1e-3) for one in (Wrapped(), calculator))
    np.testing.assert_allclose(found.tensor, expected.tensor, atol=0.05)


def test_a_pymatgen_structure_comes_back_as_one(calculator: FastCHGNet) -> None:
    given = Structure.from_spacegroup("Fm-3m", np.eye(3) * 4.2, ["Mg2+", "O2-"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    before = given.copy()
    found = elastic(given, calculator, strains=SMALL, relax_ions=False)
    assert given == before
    assert isinstance(found.structure, Structure)
    assert found.structure.species == given.species
    assert found.elastic_tensor.k_vrh == found.bulk_modulus


@pytest.mark.parametrize("strains", [(), (0.0, 0.01), (0.3,)])
def test_strains_that_make_no_sense_are_refused(strains: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"strains=.*between 0 and 0\.2"):
        elastic(bulk("Si"), strains=strains)


def test_a_molecule_has_no_elastic_constants(calculator: FastCHGNet) -> None:
    with pytest.raises(ValueError, match="needs a crystal, periodic in three directions"):
        elastic(molecule("H2O"), calculator)


def test_without_pymatgen_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pymatgen.core", None)
    with pytest.raises(ImportError, match=r"pip install 'ase-fastchgnet\[pymatgen\]'"):
        elastic(bulk("Si"))


def test_what_is_written_says_the_same(magnesium: Elasticity[Atoms], tmp_path: Path) -> None:
    paths = magnesium.write(tmp_path / "new")
    assert [path.name for path in paths] == list(FILES)
    values = json.loads(paths[0].read_text())
    np.testing.assert_allclose(values["tensor_GPa"], magnesium.tensor, atol=1e-6)
    assert values["stable"] is True
    assert values["bulk_modulus_hill_GPa"] == magnesium.bulk_modulus
    shown = str(magnesium).splitlines()
    assert [float(cell) for cell in shown[2].split()] == pytest.approx(magnesium.tensor[0].tolist(), abs=0.051)
