"""Energies of atoms from their features, and the adjoint, in plain torch: the definition of the op."""

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

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
    for weight, bias in zip(weights.hidden.unbind(), weights.hidden_bias.unbind(), strict=True):
        hidden.append(torch.addmm(bias, x, weight))
        x = silu(hidden[-1])
    return linear(x, weights.out, weights.out_bias)[:, 0], normed, Kept(moments, hidden)


def backward(atoms: Tensor, weights: ReadoutWeights, kept: Kept) -> Tensor:
    """∂(energy of the atom)/∂(its features), (atoms, D)."""
    grad = weights.out.expand_as(atoms)
    for weight, z in zip(reversed(weights.hidden.unbind()), reversed(kept.hidden), strict=True):
        grad = _silu_backward(grad, z) @ weight.T
    if weights.scale is None or kept.moments is None:
        return grad
    shape, mask = [atoms.shape[1]], [True, False, False]
    grad_atoms: Tensor = aten.native_layer_norm_backward(
        grad, atoms, shape, *kept.moments, weights.scale, weights.shift, mask
    )[0]
    return grad_atoms


def _silu_backward(grad: Tensor, z: Tensor) -> Tensor:
    """grad silu'(z), silu' = σ (1 + z (1 - σ)); torch's own is a single pass, but cannot be differentiated."""
    if not torch.is_grad_enabled():
        fused: Tensor = aten.silu_backward(grad, z)
        return fused
    sigma = torch.sigmoid(z)
    return grad * sigma * (1 + z * (1 - sigma))
