"""Atom features → energies and magnetic moments; forward and adjoint."""

from typing import NamedTuple

import torch
from torch import Tensor

from ase_fastchgnet.model.parameters import LayerNorm, Linear
from fastchgnet_kernels.gated_message.weights import NORM_EPS

aten = torch.ops.aten


class EnergySaved(NamedTuple):
    atoms: Tensor  # (atoms, 64) before the norm
    moments: tuple[Tensor, Tensor] | None  # mean and 1/deviation of the norm
    hidden: tuple[Tensor, ...]  # pre-activations of the hidden layers


def energies(atoms: Tensor, norm: LayerNorm | None, layers: tuple[Linear, ...]) -> tuple[Tensor, Tensor, EnergySaved]:
    """Energy of each atom (atoms,) eV, without reference energies; and the normalised features (atoms, 64)."""
    x, moments = atoms, None
    if norm is not None:
        x, mean, rstd = torch.native_layer_norm(atoms, [atoms.shape[1]], norm.weight, norm.bias, NORM_EPS)
        moments = (mean, rstd)
    normed, hidden = x, []
    for layer in layers[:-1]:
        hidden.append(torch.nn.functional.linear(x, layer.weight, layer.bias))
        x = aten.silu(hidden[-1])
    energy = torch.nn.functional.linear(x, layers[-1].weight, layers[-1].bias)[:, 0]
    return energy, normed, EnergySaved(atoms, moments, tuple(hidden))


def energies_backward(saved: EnergySaved, norm: LayerNorm | None, layers: tuple[Linear, ...]) -> Tensor:
    """∂(Σ energies)/∂atoms, (atoms, 64)."""
    grad = layers[-1].weight.expand(saved.atoms.shape[0], -1)
    for layer, z in zip(reversed(layers[:-1]), reversed(saved.hidden), strict=True):
        grad = aten.silu_backward(grad, z) @ layer.weight
    if norm is not None and saved.moments is not None:
        mean, rstd = saved.moments
        shape, mask = [saved.atoms.shape[1]], [True, False, False]
        grad = aten.native_layer_norm_backward(grad, saved.atoms, shape, mean, rstd, norm.weight, norm.bias, mask)[0]
    return grad
