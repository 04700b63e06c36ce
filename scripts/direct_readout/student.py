"""The direct readout while it learns: it reads standardised features, and is folded into one that reads plain ones."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from ase_fastchgnet.model.config import ModelConfig
from ase_fastchgnet.model.engine.direct_readout import Derivatives, Ends, Features, derivatives
from ase_fastchgnet.model.parameters import direct_readout
from scripts.direct_readout.shards import Group

CENTRED = ("atoms", "sensitivity")  # what reads these has a bias to take the mean into

# The features that the columns of a first layer read, side by side.
READS: dict[str, tuple[str, ...]] = {
    "atom.0.weight": ("atoms", "sensitivity"),
    "sensitivity.weight": ("sensitivity", ""),  # then hidden ones
    "hop.basis": ("basis",),
    "hop.short.weight": ("short",),
    "hop_weight": ("basis",),
    "bond.basis": ("basis",),
    "bond.short.weight": ("short",),
    "bond_weight": ("basis",),
    "angle.angle": ("angles",),
    "angle.short": ("short",),
    "angle.weight": ("short_basis",),
}
SMALL_AT_FIRST = ("bond_out", "angle.out")


class Student(nn.Module):
    """Weights by the names of a checkpoint, less the "direct_readout." in front; means and scales as buffers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.weights: dict[str, nn.Parameter] = {}

        def register(name: str, *shape: int) -> Tensor:
            short = name.removeprefix("direct_readout.")
            self.weights[short] = nn.Parameter(_initial(short, shape))
            self.register_parameter(short.replace(".", "/"), self.weights[short])
            return self.weights[short]

        self.readout = direct_readout(register, config)
        for name in Features._fields:
            self.register_buffer(f"mean_{name}", torch.zeros(1))
            self.register_buffer(f"scale_{name}", torch.ones(1))

    def measure(self, groups: list[Group]) -> None:
        """Takes means and scales from these groups."""
        for name in (*CENTRED, "short", "angles", "basis", "short_basis"):
            x = torch.cat([getattr(group.features, name).float() for group in groups])
            mean = x.mean(0) if name in CENTRED else torch.zeros(x.shape[1])
            scale = (x - mean).square().mean(0).sqrt() + 1e-3 * x.abs().mean()
            setattr(self, f"mean_{name}", mean)
            setattr(self, f"scale_{name}", scale)

    def forward(self, features: Features, at: Ends) -> Derivatives:
        """The derivatives of the energy, from plain features."""
        return derivatives(self._standardised(features), at, self.readout)

    def _standardised(self, features: Features) -> Features:
        named = features._asdict().items()
        return Features(*((x - getattr(self, f"mean_{name}")) / getattr(self, f"scale_{name}") for name, x in named))

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """Weights for plain features, under the names of a checkpoint, float64; gives what `forward` gives."""
        out = {name: weight.double() for name, weight in self.weights.items()}
        for name, reads in READS.items():
            weight, column = out[name].clone(), 0
            for feature in filter(None, reads):
                mean, scale = getattr(self, f"mean_{feature}").double(), getattr(self, f"scale_{feature}").double()
                scale = scale[: weight.shape[1]]
                columns = slice(column, column + len(scale))
                weight[:, columns] /= scale
                if feature in CENTRED:
                    bias = name.removesuffix("weight") + "bias"
                    out[bias] = out[bias] - weight[:, columns] @ mean
                column = columns.stop
            out[name] = weight
        return {f"direct_readout.{name}": weight for name, weight in out.items()}

    @classmethod
    def of(cls, config: ModelConfig, state: dict[str, Any]) -> Self:
        """The student with the weights, means and scales of a `state_dict`."""
        student = cls(config)
        for name, value in state.items():
            if name.startswith(("mean_", "scale_")):
                setattr(student, name, value)
        student.load_state_dict(state)
        return student


def _initial(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    if len(shape) == 1:
        return torch.zeros(shape)
    bound = shape[1] ** -0.5
    weight = torch.empty(shape).uniform_(-bound, bound)
    return weight * 0.3 if name in SMALL_AT_FIRST else weight
