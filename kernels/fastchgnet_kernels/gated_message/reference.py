"""Gated MLP on gathered rows, in plain torch: forward and hand-derived backward. The definition of the op.

z = Σ table[rows] (+ x W)                                   pre-activation, [core | gate], (n, 2D)
y = silu(z) W₂ + b₂          (two layers) or y = z (one)    per half
p = silu(LN(y_core)) · sigmoid(LN(y_gate))                  (n, D)
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fastchgnet_kernels.gated_message.scratch import Scratch
from fastchgnet_kernels.gated_message.weights import NORM_EPS, GatedWeights

aten = torch.ops.aten

# Pre-activations of the released models reach ±600. Their exponentials are denormal numbers, which double the time of
# a sigmoid; σ(±60) differs from 0 or 1 by 1e-26.
SATURATED = 60.0


class Half(NamedTuple):
    """Core or gate before its nonlinearity."""

    y: Tensor  # (n, D)
    sigmoid: Tensor  # (n, D) σ(LN(y)), or σ(y) where there is no norm
    mean: Tensor | None  # (n, 1)
    rstd: Tensor | None  # (n, 1)


class Saved(NamedTuple):
    """The result for one block of rows, and what its backward needs besides."""

    p: Tensor  # (n, D)
    hidden: tuple[Tensor, Tensor] | None  # (n, 2D) sigmoid(z) and silu(z); None for a one-layer MLP
    core: Half
    gate: Half


def forward(z: Tensor, weights: GatedWeights, new: Scratch) -> Saved:
    """p = silu(LN(y_core)) · sigmoid(LN(y_gate)) of pre-activations z (n, 2D) → (n, D), and what backward needs."""
    n, d = z.shape[0], z.shape[1] // 2
    y_core, y_gate, hidden = z[:, :d], z[:, d:], None
    if weights.second is not None and weights.second_bias is not None:
        sigma = torch.clamp(z, -SATURATED, SATURATED, out=new("sigma", n, 2 * d, z)).sigmoid_()
        h = torch.mul(z, sigma, out=new("h", n, 2 * d, z))
        hidden = (sigma, h)
        y_core = torch.addmm(weights.second_bias[0], h[:, :d], weights.second[0], out=new("core", n, d, z))
        y_gate = torch.addmm(weights.second_bias[1], h[:, d:], weights.second[1], out=new("gate", n, d, z))
    (a, *moments_core), (b, *moments_gate) = _norm(y_core, weights, 0), _norm(y_gate, weights, 1)
    core = Half(y_core, torch.sigmoid(a, out=new("sigmoid core", n, d, z)), *moments_core)
    gate = Half(y_gate, torch.sigmoid(b, out=new("sigmoid gate", n, d, z)), *moments_gate)
    p = torch.mul(a, core.sigmoid, out=new("p", n, d, z)).mul_(gate.sigmoid)
    return Saved(p, hidden, core, gate)


def backward(grad_p: Tensor, saved: Saved, weights: GatedWeights, new: Scratch, out: Tensor) -> Tensor:
    """Writes grad_z (n, 2D) into `out`.

    With a = LN(y_core), b = LN(y_gate) and p = a σ(a) σ(b), no exponential has to be computed again:
        ∂p/∂a = σ(b) silu'(a) = p + σ(a) (σ(b) - p),        ∂p/∂b = silu(a) σ(b) (1 - σ(b)) = p - p σ(b).
    """
    n, d = grad_p.shape
    p, core, gate = saved.p, saved.core.sigmoid, saved.gate.sigmoid
    slope_core = torch.sub(gate, p, out=new("grad core", n, d, grad_p))
    grad_core = torch.addcmul(p, core, slope_core, out=slope_core).mul_(grad_p)
    grad_gate = torch.addcmul(p, p, gate, value=-1, out=new("grad gate", n, d, grad_p)).mul_(grad_p)
    grad_core = _norm_backward(grad_core, saved.core, weights, 0)
    grad_gate = _norm_backward(grad_gate, saved.gate, weights, 1)
    if weights.second is None or saved.hidden is None:
        out[:, :d], out[:, d:] = grad_core, grad_gate
        return out
    sigma, h = saved.hidden
    grad_h = new("grad h", n, 2 * d, grad_p)
    torch.mm(grad_core, weights.second[0].T, out=grad_h[:, :d])
    torch.mm(grad_gate, weights.second[1].T, out=grad_h[:, d:])
    # silu'(z) = σ + h (1 - σ); three cheap passes, where torch's silu_backward computes σ again.
    slope = torch.addcmul(h, h, sigma, value=-1, out=new("slope", n, 2 * d, grad_p)).add_(sigma)
    return torch.mul(grad_h, slope, out=out)


def _norm(y: Tensor, weights: GatedWeights, half: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """LN(y), and the mean and reciprocal deviation of each row; y itself where there is no norm."""
    if weights.scale is None or weights.shift is None:
        return y, None, None
    scale, shift = weights.scale[half], weights.shift[half]
    return torch.native_layer_norm(y, [y.shape[1]], scale, shift, NORM_EPS)


def _norm_backward(grad: Tensor, saved: Half, weights: GatedWeights, half: int) -> Tensor:
    if weights.scale is None or weights.shift is None:
        return grad
    shape, mask = [grad.shape[1]], [True, False, False]
    scale, shift = weights.scale[half], weights.shift[half]
    grad_y: Tensor = aten.native_layer_norm_backward(grad, saved.y, shape, saved.mean, saved.rstd, scale, shift, mask)[
        0
    ]
    return grad_y
