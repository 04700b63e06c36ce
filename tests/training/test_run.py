"""train and finetune: what a run leaves behind is true, and what is wrong with it is said before the work."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read
from ase.units import GPa

from ase_fastchgnet import FastCHGNet, load_checkpoint
from ase_fastchgnet.training.config import TrainConfig
from ase_fastchgnet.training.data import read as read_sources
from ase_fastchgnet.training.data import split
from ase_fastchgnet.training.labels import read_labelled
from ase_fastchgnet.training.loop import TrainingError
from ase_fastchgnet.training.run import Training, finetune, train
from tests.training.material import crystals, write_labelled

QUICK = TrainConfig(epochs=3, batch_size=4, learning_rate=2e-3, ema=0.8)
FROZEN = ("atom_embedding", "atom_conv_layers.0", "bond_conv_layers.0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("data")
    write_labelled(where / "data.extxyz", 32)
    write_labelled(where / "new.extxyz", 8, seed=1)
    return where


@pytest.fixture(scope="module")
def run(folder: Path) -> Training:
    """Model 0.3.0 learns what 0.2.0 says; parts of it are frozen, and other structures are replayed."""
    config = QUICK.but(freeze=FROZEN, reference_energies="refit", replay_share=0.2)
    tests = {"new": folder / "new.extxyz"}
    return finetune(folder / "data.extxyz", folder / "run", config, test=tests, replay=crystals(20, 5), progress=False)


def labels(path: Path) -> list[Atoms]:
    frames = read(path, ":")
    assert isinstance(frames, list)
    return frames


def test_the_calculator_loads_the_model_and_finds_the_errors_that_were_reported(folder: Path, run: Training) -> None:
    calculator = FastCHGNet(run.model)
    frames = labels(folder / "new.extxyz")
    predictions = calculator.evaluate(frames)
    energy = [(p.energy - f.get_potential_energy()) / len(f) for p, f in zip(predictions, frames, strict=True)]
    force = np.concatenate([p.forces - f.get_forces() for p, f in zip(predictions, frames, strict=True)])
    upper = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    stress = [(p.stress - f.get_stress())[upper] / GPa for p, f in zip(predictions, frames, strict=True)]
    moments = np.concatenate(
        [p.magmoms - np.abs(f.get_magnetic_moments()) for p, f in zip(predictions, frames, strict=True)]
    )
    errors = run.after["new"][0]
    # The network and the calculator round differently, in float32.
    assert errors.energy == pytest.approx(np.abs(energy).mean(), abs=1e-5)
    assert errors.forces == pytest.approx(np.abs(force).mean(), abs=1e-5)
    assert errors.stress == pytest.approx(np.abs(stress).mean(), abs=1e-3)
    assert errors.magmoms == pytest.approx(np.abs(moments).mean(), abs=1e-5)
    labelled, predicted = run.after["new"][1].forces
    np.testing.assert_allclose(predicted - labelled, force.ravel(), atol=1e-4)


def test_training_lowers_the_loss_of_structures_that_it_has_not_seen(run: Training) -> None:
    for part in ("validation", "new"):
        assert run.after[part][0].loss < run.before[part][0].loss


def test_errors_before_are_those_of_the_model_it_began_with(folder: Path, run: Training) -> None:
    """Forces, that is; energies have been shifted to those of the data."""
    frames = labels(folder / "new.extxyz")
    predictions = FastCHGNet("0.3.0").evaluate(frames)
    errors = np.concatenate([p.forces - f.get_forces() for p, f in zip(predictions, frames, strict=True)])
    assert run.before["new"][0].forces == pytest.approx(np.abs(errors).mean(), abs=1e-5)


def test_frozen_layers_stay_and_others_move(run: Training) -> None:
    old, new = load_checkpoint("0.3.0"), load_checkpoint(run.model)
    before, after = (one.parameters.to_state_dict(one.config) for one in (old, new))
    for name, tensor in before.items():
        frozen = name.startswith((*(f"{layer}." for layer in FROZEN), "angle_layers.2."))
        assert torch.equal(tensor, after[name]) == frozen, name


def test_the_logs_say_what_the_history_says(run: Training) -> None:
    with open(run.folder / "epochs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(run.history) == 3
    for row, found in zip(rows, run.history, strict=True):
        assert row.keys() == found.keys()
        assert all(float(row[name]) == pytest.approx(value, rel=1e-5) for name, value in found.items())
    with open(run.folder / "steps.csv", newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    n_batches = -(-(29 + 7) // 4)  # 29 of 32 structures, and 7 that are replayed
    assert steps[-1] == 3 * n_batches == run.history[-1]["step"]
    assert len(steps) == len(set(steps))


def test_tensorboard_has_the_same_numbers(run: Training) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    drawn = events.Scalars("epoch/validation_loss")
    assert [point.step for point in drawn] == [row["step"] for row in run.history]
    assert [point.value for point in drawn] == pytest.approx([row["validation_loss"] for row in run.history], rel=1e-6)


def test_the_best_epoch_by_validation_is_kept(run: Training) -> None:
    best = min(row["validation_loss"] or 0 for row in run.history)
    assert run.after["validation"][0].loss == pytest.approx(best, rel=1e-5)


def test_the_folder_says_how_the_model_was_made(run: Training) -> None:
    assert TrainConfig.read(run.folder / "config.json").freeze == FROZEN
    described = json.loads((run.folder / "run.json").read_text())
    assert described["model"].startswith("0.3.0 ")
    assert set(described["data"]) == {"training", "validation", "new", "replay"}
    errors = json.loads((run.folder / "errors.json").read_text())
    assert errors["new"]["after"]["force_mae_eV_A"] == run.after["new"][0].forces
    for name in ("curves", "parity-validation", "parity-new"):
        assert (run.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_with_a_run_is_not_written_over(folder: Path, run: Training) -> None:
    with pytest.raises(FileExistsError, match="holds a run already; go on with it with resume"):
        finetune(folder / "data.extxyz", run.folder, run_config(run), progress=False)


def test_a_run_goes_on_with_the_same_settings_only(folder: Path, run: Training) -> None:
    changed = run_config(run).but(learning_rate=1e-4)
    with pytest.raises(
        ValueError, match=r"belongs to another run; what differs: learning_rate \(was 0\.002, now 0\.0001\)"
    ):
        again(folder, run, changed)


def test_resuming_a_finished_run_trains_no_more(folder: Path, run: Training) -> None:
    model, config = run.model.read_bytes(), run_config(run)
    found = again(folder, run, config)
    assert run.model.read_bytes() == model
    assert found.history == run.history
    assert found.before["new"][0] == run.before["new"][0]
    assert found.after["new"][0] == run.after["new"][0]


def run_config(run: Training) -> TrainConfig:
    return TrainConfig.read(run.folder / "config.json")


def again(folder: Path, run: Training, config: TrainConfig) -> Training:
    tests = {"new": folder / "new.extxyz"}
    data, replay = folder / "data.extxyz", crystals(20, 5)
    return finetune(data, run.folder, config, test=tests, replay=replay, progress=False, resume=True)


def test_random_weights_learn_from_energies_alone(folder: Path, tmp_path: Path) -> None:
    """Missing labels do not count, and nothing is said of them."""
    bare = [replace(one, forces=None, stress=None, magmoms=None) for one in read_labelled(folder / "data.extxyz")]
    config = TrainConfig(epochs=4, batch_size=8, learning_rate=3e-3, ema=0.5, reference_energies="refit")
    found = train(bare, tmp_path / "run", config, validation=bare[:4], progress=False)
    assert found.history[-1]["validation_force_mae_eV_A"] is None
    assert found.history[-1]["validation_energy_mae_eV_per_atom"] < found.before["validation"][0].energy
    assert np.isnan(found.after["validation"][0].forces)
    assert "-" in str(found).splitlines()[-1]


def test_a_loss_that_explodes_ends_the_run_and_names_the_remedy(folder: Path, tmp_path: Path) -> None:
    config = QUICK.but(learning_rate=1e30, warmup=0.0, epochs=9)
    with pytest.raises(TrainingError, match=r"became infinite or NaN by step .* Lower the learning rate"):
        finetune(folder / "data.extxyz", tmp_path / "run", config, progress=False)


def test_labels_in_wrong_units_stop_a_run_unless_that_is_wanted(folder: Path, tmp_path: Path) -> None:
    wrong = [
        replace(one, stress=None if one.stress is None else one.stress / GPa)
        for one in read_labelled(folder / "data.extxyz")
    ]
    with pytest.raises(ValueError, match=r"(?s)stresses are .*look like GPa.*as it is with check=False"):
        finetune(wrong, tmp_path / "run", QUICK, progress=False)
    finetune(wrong[:4], tmp_path / "run", QUICK.but(epochs=1), validation=0.0, check=False, progress=False)


def test_a_layer_that_is_not_there_is_named_before_the_data_are_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"freeze='mpl': there is no such layer; there are .* mlp"):
        finetune(tmp_path / "none.extxyz", tmp_path / "run", QUICK.but(freeze=("mpl",)))
    assert not (tmp_path / "run").exists()


def test_forces_alone_are_enough_and_a_model_that_gets_no_better_is_said_to(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = [replace(one, energy=None, stress=None, magmoms=None) for one in read_labelled(folder / "data.extxyz")[:8]]
    config = QUICK.but(epochs=1, learning_rate=1.0, warmup=0.0, ema=0.0)
    found = finetune(bare[:4], tmp_path / "run", config, validation=bare[4:], progress=False)
    assert found.after["validation"][0].loss > found.before["validation"][0].loss
    assert "by validation the model is no better than the one that training began with" in caplog.text


def test_a_share_is_put_aside_at_random_and_nothing_is_lost(folder: Path) -> None:
    everything = read_sources([folder / "data.extxyz", folder / "new.extxyz"])
    kept, aside = split(everything, 0.25, seed=3)
    assert len(aside) == 10
    assert sorted(one.source for one in kept + aside) == sorted(one.source for one in everything)
    assert [one.source for one in split(everything, 0.25, seed=4)[1]] != [one.source for one in aside]
    with pytest.raises(ValueError, match=r"validation=1\.5: expected a share"):
        split(everything, 1.5, seed=0)


def test_a_test_cannot_have_the_name_of_another_part(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="these names are taken"):
        finetune(folder / "data.extxyz", tmp_path / "run", QUICK, test={"training": folder / "new.extxyz"})
