"""evaluate(): a batch is its structures one by one."""

import warnings
from dataclasses import fields

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from structures import STRUCTURES

import ase_fastchgnet.evaluation.evaluator as evaluator
from ase_fastchgnet import FastCHGNet, Prediction, evaluate, load_checkpoint


@pytest.fixture
def structures() -> list[Atoms]:
    """Different sizes, elements and boundaries, among them one without short bonds."""
    salt = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    salt.rattle(0.08, seed=1)
    return [bulk("Cu"), salt, molecule("H2O"), bulk("Ar", a=5.3), bulk("Fe", cubic=True), salt.repeat((2, 1, 1))]


def assert_equal(one: Prediction, other: Prediction, tolerance: float) -> None:
    for field in fields(Prediction):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert (a is None) == (b is None), field.name
        if a is not None:
            np.testing.assert_allclose(a, b, atol=tolerance, err_msg=field.name)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_a_batch_is_its_structures_one_by_one_in_order(structures: list[Atoms], backend: str) -> None:
    together = evaluate(structures, dtype="float64", backend=backend)
    assert [len(p.energies) for p in together] == [len(atoms) for atoms in structures]
    for atoms, prediction in zip(structures, together, strict=True):
        (alone,) = evaluate([atoms], dtype="float64", backend=backend)
        assert_equal(prediction, alone, 1e-10)


def test_so_it_is_with_every_awkward_structure() -> None:
    structures = list(STRUCTURES.values())
    together = evaluate(structures, dtype="float64", on_isolated_atoms="ignore")
    for atoms, prediction in zip(structures, together, strict=True):
        (alone,) = evaluate([atoms], dtype="float64", on_isolated_atoms="ignore")
        assert_equal(prediction, alone, 1e-9)


@pytest.mark.parametrize("batch_size", [1, 2, 4, None])
def test_the_size_of_batches_does_not_matter(structures: list[Atoms], batch_size: int | None) -> None:
    expected = evaluate(structures, dtype="float64")
    for one, other in zip(expected, evaluate(structures, dtype="float64", batch_size=batch_size), strict=True):
        assert_equal(one, other, 1e-10)


def test_a_batch_is_bounded_by_its_rows_and_a_larger_structure_goes_alone(
    structures: list[Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluate(structures, dtype="float64")
    monkeypatch.setattr(evaluator, "BATCH_ROWS", 400)
    for one, other in zip(expected, evaluate(structures, dtype="float64"), strict=True):
        assert_equal(one, other, 1e-10)


def test_predictions_are_those_of_the_calculator(structures: list[Atoms]) -> None:
    for atoms, prediction in zip(structures, evaluate(structures, batch_size=1), strict=True):
        calc = FastCHGNet()
        assert prediction.energy == calc.get_potential_energy(atoms)
        np.testing.assert_array_equal(prediction.forces, calc.get_forces(atoms))
        if prediction.stress is not None:
            np.testing.assert_array_equal(prediction.stress, calc.get_stress(atoms))


def test_types_shapes_and_what_is_missing(structures: list[Atoms]) -> None:
    for atoms, prediction in zip(structures, evaluate(structures), strict=True):
        assert type(prediction.energy) is float
        assert prediction.energies.sum() == pytest.approx(prediction.energy, rel=1e-12)
        assert prediction.forces is not None
        assert prediction.forces.shape == (len(atoms), 3)
        assert (prediction.stress is None) == (not atoms.pbc.all())
        assert prediction.magmoms.dtype == prediction.forces.dtype == prediction.energies.dtype == np.float64
        assert prediction.forces.flags.owndata


def test_energies_alone_are_those_of_a_full_evaluation(structures: list[Atoms]) -> None:
    full = evaluate(structures)
    for one, other in zip(full, evaluate(structures, properties=["energy", "magmoms"]), strict=True):
        assert other.forces is None
        assert other.stress is None
        assert other.energy == one.energy
        np.testing.assert_array_equal(other.magmoms, one.magmoms)


def test_stress_alone_brings_forces_along(structures: list[Atoms]) -> None:
    assert evaluate(structures[:1], properties=["stress"])[0].forces is not None


def test_any_iterable_will_do_and_no_structures_give_no_predictions(structures: list[Atoms]) -> None:
    assert len(evaluate(atoms for atoms in structures)) == len(structures)
    assert evaluate([]) == []


def test_models_by_name_and_as_checkpoint_are_the_same(structures: list[Atoms]) -> None:
    by_name, loaded = (evaluate(structures[:2], model) for model in ("0.2.0", load_checkpoint("0.2.0")))
    assert [p.energy for p in by_name] == [p.energy for p in loaded]
    assert by_name[0].energy != evaluate(structures[:1])[0].energy


def test_input_is_left_alone(structures: list[Atoms]) -> None:
    before = [atoms.copy() for atoms in structures]
    evaluate(structures)
    assert before == structures
    assert all(atoms.calc is None for atoms in structures)


def test_an_error_names_the_structure(structures: list[Atoms]) -> None:
    structures[4].positions[1, 2] = np.inf
    with pytest.raises(ValueError, match=r"system 4: atom 1"):
        evaluate(structures)
    structures[2].numbers[0] = 95
    with pytest.raises(ValueError, match=r"system 2: atom 0"):
        evaluate(structures, batch_size=2)
    with pytest.raises(TypeError, match=r"system 1: expected an ase.Atoms, got str"):
        evaluate([structures[0], "Cu"])


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"properties": ["energie"]}, ValueError, "expected a collection of 'energy'"),
        ({"properties": "energy"}, ValueError, "expected a collection of 'energy'"),
        ({"batch_size": 0}, ValueError, "expected 1 or more"),
        ({"dtype": "half"}, ValueError, "is not one of"),
        ({"backend": "triton", "device": "cpu"}, ValueError, "does not run on 'cpu'"),
        ({"device": "tpu"}, ValueError, "is not a device"),
        ({"model": "1.0"}, ValueError, "neither a released model"),
        ({"on_isolated_atoms": ""}, ValueError, "is not one of"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        evaluate([bulk("Cu")], **arguments)


def test_a_single_structure_is_not_a_list_of_structures() -> None:
    with pytest.raises(TypeError, match=r"pass \[atoms\]"):
        evaluate(bulk("Cu"))


def test_isolated_atoms_are_named_with_their_structure() -> None:
    lonely = [bulk("Cu"), Atoms("Ar"), bulk("Fe"), Atoms("NeNe", positions=[[0, 0, 0], [0, 0, 8]])]
    with pytest.warns(UserWarning, match="no neighbour") as caught:
        predictions = evaluate(lonely)
    assert [str(w.message).split(" no ")[0] for w in caught] == ["system 1: atom 0 has", "system 3: atoms 0, 1 have"]
    np.testing.assert_array_equal(predictions[3].forces, 0.0)
    with pytest.raises(ValueError, match=r"system 1: atom 0 has no neighbour"):
        evaluate(lonely, on_isolated_atoms="error")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(lonely, on_isolated_atoms="ignore")
