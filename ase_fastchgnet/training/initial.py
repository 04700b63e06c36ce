"""Weights before any training."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ase_fastchgnet.model.checkpoint import Checkpoint, with_released_readout
from ase_fastchgnet.model.config import REFERENCE_ENERGIES, ModelConfig
from ase_fastchgnet.model.parameters import Parameters, stock_shapes

UNTRAINED = "untrained"  # name of a model of random weights


def untrained(config: ModelConfig, seed: int) -> Checkpoint:
    """Random weights, drawn as torch and stock chgnet draw them; reference energies are zero.

    Linear maps are uniform within ±1/√inputs, embeddings normal, norms the identity, and frequencies those of the
    Bessel functions sin(nπr/R) and of sin(nθ), n = 1, 2, …
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = stock_shapes(config)
    state = {name: _drawn(name, shape, shapes, generator) for name, shape in shapes.items()}
    parameters = Parameters.from_state_dict(state, config)
    return Checkpoint(name=UNTRAINED, config=config, parameters=parameters, sha256=f"untrained, seed {seed}")


def with_direct_readout(checkpoint: Checkpoint, seed: int) -> Checkpoint:
    """The model with a direct readout: its own, the one that comes with a released model, or one of random weights."""
    if checkpoint.config.direct_readout:
        return checkpoint
    if (released := with_released_readout(checkpoint)) is not None:
        return released
    config = replace(checkpoint.config, direct_readout=True)
    state = untrained(config, seed).parameters.to_state_dict(config)
    state |= checkpoint.parameters.to_state_dict(checkpoint.config)
    parameters = Parameters.from_state_dict(state, config)
    sha256 = f"{checkpoint.sha256}, random readout, seed {seed}"
    return Checkpoint(name=checkpoint.name, config=config, parameters=parameters, sha256=sha256)


def _drawn(name: str, shape: tuple[int, ...], shapes: dict[str, tuple[int, ...]], generator: torch.Generator) -> Tensor:
    layer, _, kind = name.rpartition(".")
    if name == REFERENCE_ENERGIES:
        return torch.zeros(shape, dtype=torch.float64)
    if kind == "frequencies":
        unit = 1.0 if "fourier" in name else math.pi
        return unit * torch.arange(1, shape[0] + 1, dtype=torch.float64)
    if layer.endswith("embedding.embedding"):
        return torch.randn(shape, generator=generator, dtype=torch.float64)
    weights = shape if len(shape) == 2 else shapes.get(f"{layer}.weight", shape)
    if len(weights) == 1:  # a norm
        return torch.full(shape, 1.0 if kind == "weight" else 0.0, dtype=torch.float64)
    limit = 1 / math.sqrt(weights[1])
    return limit * (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)
