"""TrainConfig: all settings of a training run but its data."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

T = TypeVar("T")


def _setting(default: T, help: str) -> T:
    """A field whose `help` is shown by the command line, too."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to train.  A run repeats itself with the same settings, data and number of threads; `write` keeps them."""

    forces: Literal["conservative", "direct"] = _setting(
        "conservative", "How forces and stress are computed: derivatives of the energy, or a readout trained for them."
    )
    epochs: int = _setting(50, "How often every structure is seen.")
    batch_size: int = _setting(16, "Structures in a step, all processes together.")
    learning_rate: float = _setting(1e-3, "At its highest, after the warm-up.")
    learning_rate_batch: int | None = _setting(
        None, "Batch size that the learning rate is meant for; it is scaled in proportion to the one used."
    )
    weight_decay: float = _setting(0.0, "AdamW's; 0 is Adam.")
    warmup: float = _setting(0.05, "Share of the steps in which the learning rate rises; it falls as a cosine after.")
    clip: float = _setting(1.0, "Longest gradient; a longer one is shortened to it.")
    ema: float = _setting(0.99, "Decay of the moving average of the weights, which is what is kept; 0: the weights.")
    energy_weight: float = _setting(1.0, "Of the loss of energies, eV/atom.")
    force_weight: float = _setting(1.0, "Of the loss of forces, eV/Å.")
    stress_weight: float = _setting(0.1, "Of the loss of stresses, GPa.")
    magmom_weight: float = _setting(0.1, "Of the loss of magnetic moments, μB.")
    reference_energies: Literal["keep", "refit"] = _setting(
        "refit", "Energies of the elements: fitted to the data before the first step, or the model's own."
    )
    freeze: tuple[str, ...] = _setting((), "Layers that stay as they are, by the start of their names.")
    replay_share: float = _setting(0.25, "Share of what is trained on that is replayed, if there is a replay.")
    deal: Literal["lpt", "pair", "random"] = _setting("lpt", "How a batch is dealt to the processes.")
    dtype: Literal["float32", "float64"] = _setting("float32", "Precision of the network.")
    seed: int = _setting(0, "Of the order of structures, and of weights that are not trained yet.")

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        self._require("learning_rate", self.learning_rate > 0, "more than 0")
        self._require("learning_rate_batch", self.learning_rate_batch is None or self.learning_rate_batch >= 1, "1…")
        self._require("clip", self.clip > 0, "more than 0")
        for name in ("weight_decay", "energy_weight", "force_weight", "stress_weight", "magmom_weight"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        for name in ("ema", "warmup", "replay_share"):
            self._require(name, 0 <= getattr(self, name) < 1, "from 0 up to, but not, 1")
        for name, values in CHOICES.items():
            self._require(name, getattr(self, name) in values, " or ".join(map(repr, values)))
        if isinstance(self.freeze, str) or not all(isinstance(name, str) and name for name in self.freeze):
            raise ValueError(f"freeze={self.freeze!r}: expected names of layers, such as ('atom_embedding',)")
        object.__setattr__(self, "freeze", tuple(self.freeze))

    def _require(self, name: str, fine: bool, expected: str) -> None:
        if not fine:
            raise ValueError(f"{name}={getattr(self, name)!r}: expected {expected}")

    @property
    def highest_rate(self) -> float:
        """The learning rate after the warm-up, scaled to the batch size."""
        return self.learning_rate * self.batch_size / (self.learning_rate_batch or self.batch_size)

    def but(self, **changes: Any) -> Self:
        """The same settings but for `changes`; TypeError for what is no setting."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back."""
        return asdict(self) | {"freeze": list(self.freeze)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], missing: Self | None = None) -> Self:
        """Settings by name; those not there are those of `missing` or defaults, and unknown ones a ValueError."""
        known = [one.name for one in fields(cls)]
        if unknown := [name for name in values if name not in known]:
            raise ValueError(f"unknown settings {unknown}; there are {', '.join(known)}")
        return replace(missing or cls(), **values)

    def write(self, path: str | os.PathLike[str]) -> None:
        """All settings as a JSON file."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike[str], missing: Self | None = None) -> Self:
        """The settings in a JSON file, which need not be all of them; ValueError names the file if it has none."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError("expected an object of settings")
            return cls.from_dict(values, missing)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error


CHOICES: dict[str, tuple[str, ...]] = {
    "forces": ("conservative", "direct"),
    "reference_energies": ("keep", "refit"),
    "deal": ("lpt", "pair", "random"),
    "dtype": ("float32", "float64"),
}

# For a model that has been trained before.
FINETUNE = TrainConfig(epochs=10, batch_size=8)
