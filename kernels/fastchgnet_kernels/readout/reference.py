"""Energies of atoms from their features, and the adjoint, in plain torch: the definition of the op."""

import torch
from torch import Tensor

from fastchgnet_kernels.gated_message.weights import NORM_EPS
from fastchgnet_kernels.readout.weights import Kept, ReadoutWeights

aten = torch.ops.aten


def forward(atoms: Tensor, weights: ReadoutWeights) -> tuple[Tensor, Tensor, Kept]:
    """Energies (atoms,) eV, normalised features (atoms, D), and what the adjoint needs."""
    normed, moments, hidden = atoms, None, []
    if weights.scale is not None and weights.shift is not None:
        shape = [atoms.shape[1]]
        normed, mean, rstd = torch.native_layer_norm(atoms, shape, weights.scale, weights.shift, NORM_EPS)
        moments = (mean, rstd)
    x = normed
    for weight, bias in zip(weights.hidden, weights.hidden_bias, strict=True):
        z = torch.addmm(bias, x, weight)
        sigma = torch.sigmoid(z)
        x = z * sigma
        hidden.append((sigma, x))
    energy = torch.addmm(weights.out_bias, x, weights.out[:, None])[:, 0]
    return energy, normed, Kept(moments, hidden)


def backward(atoms: Tensor, weights: ReadoutWeights, kept: Kept) -> Tensor:
    """∂(energy of the atom)/∂(its features), (atoms, D)."""
    grad, one = weights.out.expand_as(atoms), torch.ones_like(weights.out_bias)
    for weight, (sigma, h) in zip(reversed(weights.hidden.unbind()), reversed(kept.hidden), strict=True):
        # silu'(z) = σ + h (1 - σ). Torch's silu_backward computes σ again, and cannot be differentiated.
        grad = (grad * torch.lerp(h, one, sigma)) @ weight.T
    if weights.scale is None or kept.moments is None:
        return grad
    shape, mask = [atoms.shape[1]], [True, False, False]
    grad_atoms: Tensor = aten.native_layer_norm_backward(
        grad, atoms, shape, *kept.moments, weights.scale, weights.shift, mask
    )[0]
    return grad_atoms
