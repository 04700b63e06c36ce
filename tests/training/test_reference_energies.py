"""Energies of the elements are found from labels: exactly where data decide, not at all where there are none."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from structures import STRUCTURES

from ase_fastchgnet import evaluate, load_checkpoint
from ase_fastchgnet.training.labels import Labelled
from ase_fastchgnet.training.predict import predict
from ase_fastchgnet.training.reference_energies import ENOUGH, composition, element_shifts, fit, refit

CHECKPOINT = load_checkpoint("0.3.0")
NAMES = ("LiMnO2", "MgO", "Si", "NaCl", "Cu fcc", "LiMnO2 compressed", "LiMnO2 skewed")
SHIFTS = {"Li": -3.0, "Mn": 20.0, "O": 1.5, "Mg": 0.25, "Si": -100.0, "Na": 4.0, "Cl": 4.0, "Cu": 0.0}


@pytest.fixture(scope="module")
def predicted() -> list[Labelled]:
    return predict([STRUCTURES[name] for name in NAMES], CHECKPOINT)


@pytest.fixture(scope="module")
def labelled(predicted: list[Labelled]) -> list[Labelled]:
    """The model's own energies, as from a code with other energies of the elements."""
    shifted = []
    for one in predicted:
        energy = float(one.energy or 0) + sum(SHIFTS[symbol] for symbol in one.atoms.symbols)
        shifted.append(replace(one, energy=energy))
    return shifted


def test_predictions_are_those_of_evaluate(predicted: list[Labelled]) -> None:
    structures = [one.atoms for one in predicted]
    for one, other in zip(predicted, evaluate(structures, CHECKPOINT), strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-4)  # float32, and other batches
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-4)
        np.testing.assert_allclose(one.magmoms, other.magmoms, atol=1e-4)
        assert one.stress is not None
        assert other.stress is not None
        np.testing.assert_allclose(one.stress[0, 1], other.stress[5], atol=1e-5)
    (molecule,) = predict([STRUCTURES["water, no cell"]], CHECKPOINT, gradient=False)
    assert molecule.forces is None
    assert molecule.stress is None


def test_a_shift_of_every_element_is_found_as_far_as_compositions_tell_elements_apart(
    labelled: list[Labelled], predicted: list[Labelled]
) -> None:
    found = fit(labelled, predicted)
    assert found.before > 1
    assert found.after < 1e-3
    for symbol in ("Si", "Mg", "Cu"):
        assert found.determined[composition_index(symbol)] > 0 or symbol == "Cu"
    assert found.shifts[composition_index("Si")] == pytest.approx(-100, rel=1e-4)
    sodium, chlorine = (found.shifts[composition_index(symbol)] for symbol in ("Na", "Cl"))
    assert sodium + chlorine == pytest.approx(
        8, rel=1e-3
    )  # only rock salt has them, so the sum is all there is to know


def composition_index(symbol: str) -> int:
    return {"Li": 2, "O": 7, "Na": 10, "Mg": 11, "Si": 13, "Cl": 16, "Mn": 24, "Cu": 28}[symbol]


def test_a_refitted_model_has_the_energies_of_the_labels_and_everything_else_as_before(
    labelled: list[Labelled], predicted: list[Labelled]
) -> None:
    found = refit(labelled, CHECKPOINT)
    model = found.apply(CHECKPOINT)
    assert model != CHECKPOINT  # else whoever keeps loaded models would take one for the other
    for one, before, wanted in zip(predict([x.atoms for x in labelled], model), predicted, labelled, strict=True):
        assert one.energy == pytest.approx(wanted.energy, abs=2e-3 * len(one.atoms))
        np.testing.assert_allclose(one.forces, before.forces, atol=1e-5)
    absent = np.flatnonzero(found.determined == 0)
    assert len(absent) > 80
    kept = CHECKPOINT.parameters.reference_energies[absent]
    assert torch.equal(model.parameters.reference_energies[absent], kept)
    assert "Si -100.0" in str(found)


def synthetic(n: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of 20 elements in n structures of up to three of them, differences, and true shifts."""
    random = np.random.default_rng(4)
    truth = random.normal(0, 1, 20)
    shares = np.zeros((n, 20))
    for row in shares:
        chosen = random.choice(19, 3, replace=False)  # never the last one
        row[chosen] = random.dirichlet([1, 1, 1])
    return shares, shares @ truth + random.normal(0, noise, n), truth


def test_shifts_are_found_within_their_statistical_error() -> None:
    shares, differences, truth = synthetic(400, 0.05)
    shifts, determined = element_shifts(shares, differences)
    information = shares.T @ shares
    error = 0.05 * np.sqrt(np.diag(np.linalg.inv(information[:19, :19])))
    assert (np.abs(shifts - truth)[:19] < 4 * error).all()
    assert (determined[:19] > 0.95).all()
    assert shifts[19] == determined[19] == 0


def test_one_wild_energy_changes_nothing() -> None:
    shares, differences, truth = synthetic(400, 0.05)
    differences[7] = 1e4
    shifts, _ = element_shifts(shares, differences)
    assert np.abs(shifts - truth)[:19].max() < 0.1


def test_an_element_of_which_there_is_little_is_left_where_it_is() -> None:
    shares, differences, _ = synthetic(400, 0.05)
    shares[0, 19], shares[0, :19] = 0.01, 0.99 * shares[0, :19]
    differences[0] += 0.1  # two standard deviations; at face value, 10 eV for the element
    shifts, determined = element_shifts(shares, differences)
    assert abs(shifts[19]) < 0.5
    assert determined[19] < 0.1


def test_many_structures_are_not_all_evaluated(labelled: list[Labelled]) -> None:
    (silicon,) = [one for one in labelled if set(one.atoms.symbols) == {"Si"}]
    assert refit([silicon] * (3 * ENOUGH), CHECKPOINT).structures == ENOUGH


def test_composition_is_the_share_of_each_element(labelled: list[Labelled]) -> None:
    shares = composition(labelled[0])
    assert shares.sum() == pytest.approx(1)
    assert shares[composition_index("O")] == 0.5


def test_without_energies_there_is_nothing_to_fit(labelled: list[Labelled]) -> None:
    with pytest.raises(ValueError, match="no energy is known"):
        refit([replace(labelled[0], energy=None)], CHECKPOINT)
