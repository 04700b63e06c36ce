"""phonons: what stock chgnet and phonopy give by hand, second derivatives, sound, sums over modes, what is reported.

Supercells are small: the claims hold for any, and most are about arithmetic rather than about a crystal.
"""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from pymatgen.core import Structure
from stock import stock_predict
from structures import STRUCTURES, other_basis

from ase_fastchgnet import FastCHGNet, Phonons, elastic, evaluate, phonons, relax
from ase_fastchgnet.workflows.lattice_dynamics import FILES
from ase_fastchgnet.workflows.phonon_spectrum import IMAGINARY

phonopy = pytest.importorskip("phonopy")
pytest.importorskip("seekpath")

CRYSTALS = {
    "Si": (bulk("Si"), (2, 2, 2)),
    "NaCl": (bulk("NaCl", "rocksalt", a=5.6), (2, 2, 2)),
    "MgO": (bulk("MgO", "rocksalt", a=4.2), (2, 2, 2)),
    "LiMnO2": (STRUCTURES["LiMnO2"], (2, 1, 1)),
}
QPOINTS = [[0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0], [0.13, 0.27, 0.31], [0.01, 0, 0]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def calculator() -> FastCHGNet:
    return FastCHGNet(dtype="float64")


@pytest.fixture(scope="module")
def silicon(calculator: FastCHGNet) -> Phonons[Atoms]:
    return phonons(bulk("Si", a=5.5), calculator, supercell=[2, 2, 2], mesh=30)


@pytest.fixture(scope="module")
def unstable() -> tuple[Phonons[Atoms], list[str]]:
    """Copper on a simple cubic lattice, and what was logged about it."""
    records: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("ase_fastchgnet")
    logger.addHandler(handler)
    found = phonons(bulk("Cu", "sc", a=2.4), EMT(), supercell=[3, 3, 3], mesh=20)  # type: ignore[no-untyped-call]
    logger.removeHandler(handler)
    return found, records


def by_hand(atoms: Atoms, repeats: Sequence[int]) -> Any:
    """phonopy as its manual has it, forces of stock chgnet in float64."""
    from phonopy.structure.atoms import PhonopyAtoms

    cell = PhonopyAtoms(symbols=list(atoms.symbols), cell=atoms.cell.array, positions=atoms.positions)
    found = phonopy.Phonopy(cell, supercell_matrix=np.diag(repeats), primitive_matrix="P")
    found.generate_displacements(distance=0.01)
    found.forces = [
        stock_predict(Atoms(s.symbols, positions=s.positions, cell=s.cell, pbc=True))["forces"]
        for s in found.supercells_with_displacements
    ]
    found.produce_force_constants()
    found.symmetrize_force_constants()
    return found


@pytest.mark.parametrize("name", CRYSTALS)
def test_frequencies_are_those_of_phonopy_driven_by_stock_chgnet(name: str, calculator: FastCHGNet) -> None:
    atoms, repeats = CRYSTALS[name]
    found = phonons(atoms, calculator, fmax=1e-6, supercell=repeats, mesh=10)
    expected = by_hand(found.structure, repeats).run_qpoints(QPOINTS).frequencies
    # Forces agree to 1e-8 eV/Å, force constants to 1e-6 eV/Å²; a frequency that is zero feels the root of that.
    np.testing.assert_allclose(found.phonopy.run_qpoints(QPOINTS).frequencies, expected, atol=3e-3)


def test_force_constants_are_second_derivatives_though_the_crystal_is_not_at_rest(calculator: FastCHGNet) -> None:
    atoms = STRUCTURES["LiMnO2"]
    found = phonons(atoms, calculator, relax=False, supercell=[1, 1, 1], mesh=10)
    assert np.abs(found.structure.get_forces()).max() > 0.05  # as large as what a displacement causes
    step = 0.01
    moved = []
    for i in range(len(atoms)):
        for sign in (1, -1):
            one = atoms.copy()
            one.positions[i, 2] += sign * step
            moved.append(one)
    forces = [prediction.forces for prediction in evaluate(moved, dtype="float64")]
    for i in range(len(atoms)):
        slope = -(forces[2 * i] - forces[2 * i + 1]) / (2 * step)
        # What is of third order in a displacement of one sign; the forces at rest would make 0.09 / 0.01 = 9 eV/Å²
        np.testing.assert_allclose(found.phonopy.force_constants[i, :, 2], slope, atol=0.6)


def test_silicon_has_three_acoustic_modes_and_three_optical_ones_of_one_frequency(silicon: Phonons[Atoms]) -> None:
    gamma = next(band.frequencies[0] for band in silicon.bands if band.start == "Γ")
    np.testing.assert_allclose(gamma[:3], 0, atol=1e-3)
    np.testing.assert_allclose(gamma[3:], gamma[3], atol=1e-3)
    assert 11 < gamma[3] < 15  # 15.5 THz in nature; CHGNet is soft


def test_the_path_is_seekpaths_with_its_labels(silicon: Phonons[Atoms]) -> None:
    pieces = [(band.start, band.end) for band in silicon.bands]
    assert pieces == [("Γ", "X"), ("X", "U"), ("K", "Γ"), ("Γ", "L"), ("L", "W"), ("W", "X")]
    for band in silicon.bands:
        assert np.all(np.diff(band.distances) > 0)
        cartesian = band.qpoints @ np.linalg.inv(silicon.phonopy.primitive.cell).T
        np.testing.assert_allclose(
            band.distances[-1] - band.distances[0], np.linalg.norm(cartesian[-1] - cartesian[0]), atol=1e-9
        )


@pytest.mark.parametrize(
    ("basis", "supercell"),
    [
        ([[1, 0, 0], [1, 1, 0], [-2, 1, 1]], [2, 2, 2]),
        ([[0, 1, 0], [1, 0, 0], [0, 0, 1]], [2, 2, 2]),  # left-handed
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[-2, 2, 2], [2, -2, 2], [2, 2, -2]]),
    ],
    ids=["skewed", "left-handed", "supercell by a matrix"],
)
def test_bands_do_not_depend_on_the_cell_that_describes_the_crystal(
    basis: list[list[int]], supercell: Any, calculator: FastCHGNet
) -> None:
    salt = relax(bulk("NaCl", "rocksalt", a=5.6), calculator, fmax=1e-5, optimizer="LBFGS").structure
    reference = cube = salt
    if np.ndim(supercell) == 2:  # two cubic cells each way: the same as this matrix, of the primitive cell
        cube = Atoms(bulk("NaCl", "rocksalt", a=salt.cell.lengths()[0] * np.sqrt(2), cubic=True))
        reference, sizes = cube, [2, 2, 2]
    else:
        sizes = supercell
    expected = phonons(reference, calculator, relax=False, supercell=sizes, mesh=10)
    found = phonons(other_basis(salt, basis), calculator, relax=False, supercell=supercell, mesh=10)
    assert len(found.bands) == len(expected.bands)
    for ours, theirs in zip(found.bands, expected.bands, strict=True):
        assert (ours.start, ours.end) == (theirs.start, theirs.end)
        # 0.01: the direction of a displacement is chosen along cell vectors, and forces are not linear to all digits
        np.testing.assert_allclose(ours.frequencies, theirs.frequencies, atol=0.01)


def test_sound_has_the_speed_that_elastic_constants_give_it(calculator: FastCHGNet) -> None:
    found = phonons(bulk("Si"), calculator, supercell=[5, 5, 5], displacement=0.003, mesh=10)
    tensor = elastic(found.structure, calculator, relax=False, strains=(-0.002, 0.002)).tensor
    q = np.array([0, 0.005, 0.005])  # along a cubic axis
    length = np.linalg.norm(q @ np.linalg.inv(found.phonopy.primitive.cell).T)
    speed = 100 * found.phonopy.run_qpoints([q]).frequencies[0, :3] / length  # m/s
    density = found.structure.get_masses().sum() * units._amu / (found.structure.get_volume() * 1e-30)
    transverse, longitudinal = np.sqrt(1e9 * np.array([tensor[3, 3], tensor[0, 0]]) / density)
    # CHGNet's forces are not linear even at 0.003 Å, and reach further than the supercell: 1.4 % as measured
    np.testing.assert_allclose(speed, [transverse, transverse, longitudinal], rtol=0.03)


def test_densities_of_states_count_all_modes(silicon: Phonons[Atoms]) -> None:
    dos = silicon.dos
    assert np.trapezoid(dos.total, dos.frequencies) == pytest.approx(6, rel=0.01)
    np.testing.assert_allclose(sum(dos.elements.values()), dos.total, atol=1e-12)
    step = dos.frequencies[1] - dos.frequencies[0]
    phonopys = silicon.phonopy.run_total_dos(freq_min=dos.frequencies[0], freq_max=dos.frequencies[-1], freq_pitch=step)
    np.testing.assert_allclose(dos.total, phonopys.dos[: len(dos.total)], atol=1e-6)


def test_each_element_has_its_own_modes(calculator: FastCHGNet) -> None:
    found = phonons(bulk("NaCl", "rocksalt", a=5.6), calculator, supercell=[2, 2, 2], mesh=30)
    assert list(found.dos.elements) == ["Na", "Cl"]
    for share in found.dos.elements.values():
        assert np.trapezoid(share, found.dos.frequencies) == pytest.approx(3, rel=0.02)


def test_thermal_properties_are_sums_over_the_modes_of_the_mesh(silicon: Phonons[Atoms]) -> None:
    thermal = silicon.thermal
    frequencies = np.sort(silicon.phonopy.mesh.frequencies, axis=None)
    n_q = len(silicon.phonopy.mesh.frequencies)
    quanta = frequencies[3:] * 1e12 * units._hplanck / units._e  # eV; the three that are zero left out
    per_atom = 1 / (2 * n_q)
    assert thermal.zero_point_energy == pytest.approx(per_atom * quanta.sum() / 2, rel=1e-4)
    for kelvin in (100.0, 300.0, 1000.0):
        x = quanta / (units.kB * kelvin)
        at = list(thermal.temperatures).index(kelvin)
        free = per_atom * np.sum(quanta / 2 + units.kB * kelvin * np.log1p(-np.exp(-x)))
        capacity = per_atom * np.sum(x**2 * np.exp(x) / np.expm1(x) ** 2) * units.kB * units.mol / units.J
        assert thermal.free_energy[at] == pytest.approx(free, abs=1e-6)
        assert thermal.heat_capacity[at] == pytest.approx(capacity, rel=1e-4)
    # S = -dF/dT, in the units in which they are given
    slope = -np.gradient(thermal.free_energy, thermal.temperatures)[10:-1] * units.mol / units.J
    np.testing.assert_allclose(thermal.entropy[10:-1], slope, rtol=1e-2)


def test_imaginary_modes_are_reported_and_drawn(unstable: tuple[Phonons[Atoms], list[str]]) -> None:
    found, logged = unstable
    assert not found.stable
    lowest = min(band.frequencies.min() for band in found.bands)
    assert found.imaginary[0].frequency <= lowest + 1e-3 < -1
    (frequencies,) = found.phonopy.run_qpoints([found.imaginary[0].qpoint]).frequencies
    assert found.imaginary[0].frequency == pytest.approx(frequencies.min(), abs=1e-3)
    assert 0 < found.imaginary_share < 1
    assert found.imaginary_share == np.mean(found.phonopy.mesh.frequencies < -IMAGINARY)
    (line,) = (line for line in logged if "imaginary" in line)
    said = f"lowest {-found.imaginary[0].frequency:.2f}i THz"
    assert said in line
    assert said in str(found)
    _, bands = found.plot_bands()
    assert bands.get_ylim()[0] < lowest
    _, dos = found.plot_dos()
    assert dos.get_xlim()[0] < -1
    _, thermal = found.plot_thermal()
    assert "imaginary" in thermal.get_title()


def test_modes_at_labelled_points_are_named(unstable: tuple[Phonons[Atoms], list[str]]) -> None:
    found, _ = unstable
    ends = {band.start: band.frequencies[0] for band in found.bands}
    ends |= {band.end: band.frequencies[-1] for band in found.bands}
    expected = {label for label, frequencies in ends.items() if frequencies.min() < -IMAGINARY}
    assert {mode.label for mode in found.imaginary if mode.label} == expected
    assert expected


def test_a_stable_crystal_is_said_to_be_so(silicon: Phonons[Atoms], caplog: pytest.LogCaptureFixture) -> None:
    assert silicon.stable
    assert silicon.imaginary == ()
    assert silicon.imaginary_share == 0
    assert "no imaginary modes" in str(silicon)
    assert silicon.plot_bands()[1].get_ylim()[0] == 0


def test_the_crystal_is_relaxed_first_and_the_one_given_stays(calculator: FastCHGNet) -> None:
    given = bulk("Si", a=5.5)
    before = given.copy()
    found = phonons(given, calculator, supercell=[1, 1, 1], mesh=10)
    assert given == before
    assert found.structure.get_volume() == pytest.approx(
        relax(given, calculator, fmax=1e-4, optimizer="LBFGS").structure.get_volume(), rel=1e-4
    )
    assert np.abs(found.structure.get_stress()).max() < 1e-4


def test_without_relaxation_the_structure_stays_and_forces_are_logged(
    calculator: FastCHGNet, caplog: pytest.LogCaptureFixture
) -> None:
    given = STRUCTURES["LiMnO2"]
    found = phonons(given, calculator, relax=False, supercell=[1, 1, 1], mesh=10)
    np.testing.assert_array_equal(found.structure.positions, given.positions)
    np.testing.assert_array_equal(found.structure.cell.array, given.cell.array)
    assert "not at a minimum: forces up to 0.1" in caplog.text or "forces up to 0.09" in caplog.text


def test_float32_is_allowed_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    phonons(bulk("Si"), FastCHGNet(), relax=False, supercell=[1, 1, 1], mesh=10)
    assert "float64" in caplog.text


def test_symfc_and_phonopys_own_force_constants_agree(silicon: Phonons[Atoms], calculator: FastCHGNet) -> None:
    found = phonons(silicon.structure, calculator, relax=False, supercell=[2, 2, 2], mesh=10, fc_calculator="symfc")
    ours, theirs = (one.phonopy.run_qpoints(QPOINTS).frequencies for one in (found, silicon))
    np.testing.assert_allclose(ours, theirs, atol=0.02)  # they treat what is not linear differently


@pytest.mark.parametrize(("thickness", "repeats"), [(6.0, 2), (6.3, 2), (6.4, 3)])
def test_a_length_makes_the_supercell_at_least_so_thick(
    thickness: float, repeats: int, silicon: Phonons[Atoms], calculator: FastCHGNet
) -> None:
    atoms = silicon.structure  # 3.15 Å between opposite faces
    found = phonons(atoms, calculator, relax=False, supercell=thickness, mesh=10)
    np.testing.assert_array_equal(found.phonopy.supercell_matrix, repeats * np.eye(3))


def test_a_pymatgen_structure_comes_back_as_one(calculator: FastCHGNet) -> None:
    given = Structure.from_spacegroup("Fd-3m", [[5.5, 0, 0], [0, 5.5, 0], [0, 0, 5.5]], ["Si"], [[0, 0, 0]])
    found = phonons(given, calculator, supercell=[1, 1, 1], mesh=10)
    assert isinstance(found.structure, Structure)
    assert len(found.phonopy.primitive) == 2
    assert found.bands[0].frequencies.shape[1] == 6


def test_any_calculator_will_do() -> None:
    found = phonons(bulk("Cu", a=3.6), EMT(), supercell=[3, 3, 3], mesh=10)  # type: ignore[no-untyped-call]
    assert found.stable
    assert 6 < max(band.frequencies.max() for band in found.bands) < 9  # 7.3 THz in nature


def test_masses_that_were_set_are_used(silicon: Phonons[Atoms], calculator: FastCHGNet) -> None:
    heavy = silicon.structure.copy()
    heavy.set_masses([4 * mass for mass in heavy.get_masses()])
    found = phonons(heavy, calculator, relax=False, supercell=[2, 2, 2], mesh=10)
    np.testing.assert_allclose(
        2 * found.phonopy.run_qpoints(QPOINTS[1:4]).frequencies,
        silicon.phonopy.run_qpoints(QPOINTS[1:4]).frequencies,
        rtol=1e-4,
    )


def test_what_is_written_says_the_same(silicon: Phonons[Atoms], tmp_path: Path) -> None:
    paths = silicon.write(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == list(FILES)
    assert all(path.stat().st_size > 100 for path in paths)
    again = phonopy.load(paths[0], log_level=0)
    np.testing.assert_allclose(
        again.run_qpoints(QPOINTS).frequencies, silicon.phonopy.run_qpoints(QPOINTS).frequencies, atol=1e-3
    )
    bands, dos, thermal = (list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) for path in paths[5:])
    assert len(bands) == sum(len(band.distances) for band in silicon.bands)
    assert float(bands[0]["mode4_THz"]) == pytest.approx(silicon.bands[0].frequencies[0, 3], abs=1e-6)
    assert [float(row["Si_per_THz"]) for row in dos] == pytest.approx(silicon.dos.total.tolist(), abs=1e-6)
    assert float(thermal[30]["temperature_K"]) == 300
    assert float(thermal[30]["free_energy_eV_per_atom"]) == pytest.approx(silicon.thermal.free_energy[30], abs=1e-6)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths[2:5])


def test_a_molecule_has_no_bands(calculator: FastCHGNet) -> None:
    with pytest.raises(ValueError, match="needs a crystal, periodic in three directions"):
        phonons(molecule("H2O"), calculator)


@pytest.mark.parametrize("package", ["phonopy", "seekpath"])
def test_a_missing_package_is_named_with_the_remedy(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ImportError, match=rf"{package}.*pip install 'ase-fastchgnet\[phonons\]'"):
        phonons(bulk("Si"))
