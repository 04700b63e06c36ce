"""What turns gradients into weights: which weights are trained, Adam, its learning rate, and the moving average."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from .config import TrainConfig

FINAL_SHARE = 0.01  # of the learning rate, at the last step


def freeze_layers(network: torch.nn.Module, names: Sequence[str]) -> None:
    """Freeze the parameters whose names start with one of `names`, up to a dot or the end; ValueError for no such."""
    layers = [name for name, _ in network.named_parameters()]
    for wanted in names:
        matching = [layer for layer in layers if f"{layer}.".startswith(f"{wanted.rstrip('.')}.")]
        if not matching:
            tops = {re.sub(r"\.(weight|bias)$", "", ".".join(layer.split(".")[:2])) for layer in layers}
            raise ValueError(f"freeze={wanted!r}: there is no such layer; there are {', '.join(sorted(tops))}")
        for layer in matching:
            network.get_parameter(layer).requires_grad_(False)


def trained(network: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that are not frozen, by name."""
    found = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    if not found:
        raise ValueError("every layer is frozen, so there is nothing to train; freeze fewer")
    return found


def make_optimiser(parameters: dict[str, torch.nn.Parameter], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW, which without weight decay is Adam; vectors (biases, norms, frequencies) do not decay."""
    groups = [
        {"params": [p for p in parameters.values() if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters.values() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=config.highest_rate, fused=True)
    for parameter in parameters.values():  # what the first step would make, so that a saved state has where to go
        optimiser.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimiser


def learning_rate(step: int, n_steps: int, config: TrainConfig) -> float:
    """Of step 0, 1, … of `n_steps`: a line up to the highest rate, then half a cosine down to FINAL_SHARE of it."""
    rising = round(config.warmup * n_steps)
    if step < rising:
        return config.highest_rate * (step + 1) / (rising + 1)
    fallen = (step - rising) / max(1, n_steps - 1 - rising)
    return config.highest_rate * (FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * fallen)) / 2)


class MovingAverage:
    """Exponential moving average of weights; over the first steps it is shorter, so that it forgets their start."""

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self.decay = decay
        self._parameters = list(parameters)
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step 1, 2, …"""
        decay = min(self.decay, step / (step + 9))
        torch._foreach_lerp_(self.values, self._parameters, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The averages stand in for the weights."""
        kept = [parameter.detach().clone() for parameter in self._parameters]
        _copy(self.values, self._parameters)
        try:
            yield
        finally:
            _copy(kept, self._parameters)


@torch.no_grad()
def _copy(values: Sequence[Tensor], to: Sequence[Tensor]) -> None:
    for value, target in zip(values, to, strict=True):
        target.copy_(value)
