"""Settings: kept in a file, refused by name, and shown by the command line."""

import json
from pathlib import Path

import pytest

from ase_fastchgnet.training.config import FINETUNE, TrainConfig


def test_settings_survive_their_file(tmp_path: Path) -> None:
    config = FINETUNE.but(epochs=3, freeze=("atom_embedding", "mlp"), learning_rate_batch=64, ema=0.0)
    config.write(tmp_path / "config.json")
    assert TrainConfig.read(tmp_path / "config.json") == config
    assert json.loads((tmp_path / "config.json").read_text())["freeze"] == ["atom_embedding", "mlp"]


def test_a_file_may_say_less_but_nothing_unknown(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"epochs": 3}')
    assert TrainConfig.read(path) == TrainConfig(epochs=3)
    assert TrainConfig.read(path, missing=FINETUNE) == FINETUNE.but(epochs=3)
    path.write_text('{"epoch": 3}')
    with pytest.raises(ValueError, match=r"config\.json: unknown settings \['epoch'\]; there are forces, epochs"):
        TrainConfig.read(path)
    path.write_text("[3]")
    with pytest.raises(ValueError, match=r"config\.json: expected an object"):
        TrainConfig.read(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": -1},
        {"learning_rate": 0.0},
        {"learning_rate_batch": 0},
        {"clip": 0.0},
        {"weight_decay": -0.1},
        {"force_weight": -1.0},
        {"ema": 1.0},
        {"warmup": 1.0},
        {"replay_share": 1.0},
        {"forces": "both"},
        {"reference_energies": "shift"},
        {"deal": "snake"},
        {"dtype": "float16"},
        {"freeze": "mlp"},
        {"learning_rate": float("nan")},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_by_name(wrong: dict[str, object]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}: expected "):
        TrainConfig(**wrong)  # type: ignore[arg-type]


def test_the_learning_rate_grows_in_proportion_to_the_batch() -> None:
    config = TrainConfig(learning_rate=3e-4, learning_rate_batch=128)
    assert config.but(batch_size=128).highest_rate == pytest.approx(3e-4)
    assert config.but(batch_size=2048).highest_rate == pytest.approx(4.8e-3)
    assert TrainConfig(learning_rate=3e-4, batch_size=2048).highest_rate == pytest.approx(3e-4)
