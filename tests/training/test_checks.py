"""Checks find what is wrong with labels, say it in words, change nothing, and are silent where nothing is wrong."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.units import Bohr, GPa, Hartree, Rydberg, kcal, mol
from structures import STRUCTURES

from ase_fastchgnet import load_checkpoint
from ase_fastchgnet.training.checks import Report, check_labels
from ase_fastchgnet.training.labels import Labelled
from ase_fastchgnet.training.predict import predict

CHECKPOINT = load_checkpoint("0.3.0")
NAMES = ("LiMnO2", "MgO", "Si", "NaCl", "W bcc, cubic cell")
SOFT = 1.2  # labels over predictions: CHGNet is too soft by about that


def distorted(name: str, seed: int) -> Atoms:
    """Moved and strained, so that there are forces and a stress."""
    random = np.random.default_rng(seed)
    atoms = STRUCTURES[name].copy()
    atoms.info.clear()
    atoms.set_cell(atoms.cell.array * random.uniform(0.93, 1.05), scale_atoms=True)
    atoms.positions += random.normal(0, 0.1, atoms.positions.shape)
    return atoms


@pytest.fixture(scope="module")
def good() -> list[Labelled]:
    """What the model says, less soft and with noise, as DFT would have it."""
    random = np.random.default_rng(3)
    structures = [distorted(name, seed) for seed in range(5) for name in NAMES]
    labelled = []
    for number, one in enumerate(predict(structures, CHECKPOINT)):
        assert one.energy is not None
        assert one.forces is not None
        assert one.stress is not None
        assert one.magmoms is not None
        noise = random.normal(0, 0.05, one.forces.shape)
        labelled.append(
            replace(
                one,
                energy=one.energy + 0.03 * len(one.atoms) * random.normal(),
                forces=SOFT * one.forces + noise - noise.mean(axis=0),
                stress=SOFT * one.stress + random.normal(0, 2e-3, (3, 3)),
                source=f"file@{number}",
            )
        )
    return labelled


def words(report: Report, severity: str) -> str:
    return "\n".join(finding.text for finding in report.findings if finding.severity == severity)


def changed(labelled: list[Labelled], **change: Callable[[Labelled], Any]) -> list[Labelled]:
    """With labels that are made from the old ones."""
    return [replace(one, **{name: make(one) for name, make in change.items()}) for one in labelled]


def test_nothing_is_found_where_nothing_is_wrong(good: list[Labelled]) -> None:
    report = check_labels(good, CHECKPOINT)
    (note,) = report.findings
    assert note.severity == "note"
    assert note.text.startswith("0.3.0 differs from 25 of them on average by: energy 2")
    assert (report.structures, report.atoms) == (25, sum(len(one.atoms) for one in good))
    assert report.known == {"energy": 25, "forces": 25, "stress": 25, "magmoms": 25}
    assert str(report).startswith("25 structures, ")


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (-1.0, "their sign is wrong: they are gradients"),
        (Bohr / Hartree, "they look like Hartree/Bohr: multiply by 51.422"),
        (Bohr / Rydberg, "they look like Rydberg/Bohr: multiply by 25.711"),
        (mol / kcal, "they look like kcal/mol/Å: multiply by 0.0433641"),
        (-1e3, "their sign is wrong: they are gradients, not forces, and they look like meV/Å"),
    ],
)
def test_units_and_signs_of_forces_are_recognised(good: list[Labelled], factor: float, message: str) -> None:
    report = check_labels(changed(good, forces=lambda one: factor * one.forces), CHECKPOINT)
    assert message in words(report, "error")
    assert len(report.errors) == 1


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (-1.0, "their sign is wrong: tension is positive"),
        (1 / GPa, "they look like GPa: multiply by 0.00624151"),
        (-10 / GPa, "their sign is wrong: tension is positive, and they look like kilobar: multiply by 0.000624151"),
    ],
)
def test_units_and_signs_of_stress_are_recognised(good: list[Labelled], factor: float, message: str) -> None:
    report = check_labels(changed(good, stress=lambda one: factor * one.stress), CHECKPOINT)
    assert message in words(report, "error")
    assert len(report.errors) == 1


@pytest.mark.parametrize(("sign", "message"), [(1, "stress times volume"), (-1, "virials, in eV")])
def test_virials_in_the_place_of_stress_are_recognised(good: list[Labelled], sign: int, message: str) -> None:
    report = check_labels(changed(good, stress=lambda one: sign * one.stress * one.atoms.get_volume()), CHECKPOINT)
    assert message in words(report, "error")
    assert len(report.errors) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda one: one.energy / len(one.atoms), "energies look like eV of one atom"),
        (lambda one: one.energy / Hartree, "energies look like Hartree"),
        (lambda one: -one.energy, "energies look like eV with the opposite sign"),
    ],
)
def test_units_of_energies_are_recognised(
    good: list[Labelled], make: Callable[[Labelled], float], message: str
) -> None:
    report = check_labels(changed(good, energy=make), CHECKPOINT)
    assert message in words(report, "error")
    assert len(report.errors) == 1


def test_energies_of_another_reference_are_told_from_energies_that_are_wrong(good: list[Labelled]) -> None:
    shifted = changed(good, energy=lambda one: one.energy - 0.8 * sum(one.atoms.numbers == 8) - 2.0 * len(one.atoms))
    assert "another code, functional or correction" in words(check_labels(shifted, CHECKPOINT), "warning")
    random = np.random.default_rng(5)
    noisy = changed(good, energy=lambda one: one.energy + len(one.atoms) * random.normal(0, 0.5))
    assert "do not explain it" in words(check_labels(noisy, CHECKPOINT), "warning")
    assert not check_labels(shifted, CHECKPOINT).errors


def test_a_factor_that_is_no_unit_is_a_warning(good: list[Labelled]) -> None:
    report = check_labels(changed(good, forces=lambda one: 3.0 * one.forces), CHECKPOINT)
    assert "forces are 3.6" in words(report, "warning")
    assert not report.errors


def test_forces_in_another_order_than_atoms_are_noticed(good: list[Labelled]) -> None:
    random = np.random.default_rng(6)
    report = check_labels(changed(good, forces=lambda one: random.permutation(one.forces)), CHECKPOINT)
    assert "forces do not follow the model's" in words(report, "warning")


def test_an_outlying_energy_is_named(good: list[Labelled]) -> None:
    bad = [replace(good[7], energy=(good[7].energy or 0) + 40.0)]
    report = check_labels(good[:7] + bad + good[8:])
    (finding,) = report.findings
    assert "energies of 1 structure are more than" in finding.text
    assert finding.structures == ("file@7",)


def test_forces_that_do_not_add_up_to_zero_are_named(good: list[Labelled]) -> None:
    pushed = [replace(one, forces=np.asarray(one.forces) + 0.1) for one in good[2:4]]
    report = check_labels(good[:2] + pushed + good[4:])
    (finding,) = report.findings
    assert "add up to more than 0.02 eV/Å per atom, 0.17 at most" in finding.text
    assert sorted(finding.structures) == ["file@2", "file@3"]


def test_large_labels_are_named_the_largest_first(good: list[Labelled]) -> None:
    large = []
    for one, force in zip(good[:2], (50.0, 500.0), strict=True):
        forces = np.zeros_like(one.forces)
        forces[0, 0], forces[1, 0] = force, -force
        large.append(replace(one, forces=forces))
    (finding,) = check_labels(large + good[2:]).findings
    assert finding.text == "forces of 2 structures exceed 30 eV/Å, up to 500"
    assert finding.structures == ("file@1", "file@0")


def test_structures_that_are_there_twice_are_found_and_contradictions_too(good: list[Labelled]) -> None:
    again = replace(good[3], atoms=good[3].atoms.copy(), source="other@0")
    again.atoms.positions += 1e-6
    (finding,) = check_labels([*good, again]).findings
    assert (finding.text[:11], finding.structures) == ("1 structure", ("other@0",))
    (finding,) = check_labels([*good, replace(again, energy=(again.energy or 0) + 0.5)]).findings
    assert "with labels that are not" in finding.text
    assert finding.structures == ("file@3", "other@0")


def test_labels_that_teach_nothing_are_noticed(good: list[Labelled]) -> None:
    still = changed(
        good,
        forces=lambda one: 0 * one.forces,
        stress=lambda one: 0 * one.stress,
        magmoms=lambda one: 0 * one.magmoms,
    )
    bare = replace(good[0], energy=None, forces=None, stress=None, magmoms=None, source="bare")
    bare.atoms.positions[0] += 0.1
    found = words(check_labels([*still, bare]), "warning")
    assert "nothing is known of 1 structure" in found
    assert "no force exceeds 1 meV/Å" in found
    assert "stresses of 25 structures are exactly zero" in found
    assert "magnetic moments of 25 structures are exactly zero" in found


def test_unknown_labels_are_left_alone(good: list[Labelled]) -> None:
    forces = np.array(good[0].forces)
    forces[0] = np.nan
    part = [replace(good[0], forces=forces, stress=None), *changed(good[1:], magmoms=lambda one: None)]
    report = check_labels(part, CHECKPOINT)
    assert report.known == {"energy": 25, "forces": 25, "stress": 24, "magmoms": 1}
    assert [finding.severity for finding in report.findings] == ["note"]
    energies_only = changed(good, forces=lambda one: None, stress=lambda one: None, magmoms=lambda one: None)
    (note,) = check_labels(energies_only, CHECKPOINT).findings
    assert "forces" not in note.text


def test_checks_change_nothing(good: list[Labelled]) -> None:
    before = [(one.energy, one.atoms.positions.copy(), np.array(one.forces), np.array(one.stress)) for one in good]
    check_labels(good, CHECKPOINT)
    for one, (energy, positions, forces, stress) in zip(good, before, strict=True):
        assert one.energy == energy
        np.testing.assert_array_equal(one.atoms.positions, positions)
        np.testing.assert_array_equal(one.forces, forces)
        np.testing.assert_array_equal(one.stress, stress)


def test_the_report_names_a_file_once_and_counts_the_rest(good: list[Labelled]) -> None:
    pushed = [replace(one, forces=np.asarray(one.forces) + 0.1) for one in good[:5]]
    text = " ".join(str(check_labels(pushed + good[5:])).split())
    assert "known: energy 25, forces 25, stress 25, magmoms 25 warning: forces of 5 structures add up" in text
    assert re.search(r"\(file@\d, @\d, @\d and 2 more\)$", text)
    assert text.count("file@") == 1
    with pytest.raises(ValueError, match="no labelled structures"):
        check_labels([])
