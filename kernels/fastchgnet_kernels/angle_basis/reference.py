"""Fourier basis of the angles between edges, in plain torch: the definition of the op."""

import math

import torch
from torch import Tensor

SHRINK = 1 - 1e-6  # CHGNet scales the cosine so that acos' stays finite for parallel edges
INV_SQRT_PI = 1 / math.sqrt(math.pi)


def forward(unit: Tensor, edges_of_angle: Tensor, frequencies: Tensor) -> Tensor:
    """[1/√2, sin(f_k θ), cos(f_k θ)] / √π with θ = acos((1 - 1e-6) u_first · u_second).

    unit (edges, 3) float64 unit vectors, edges_of_angle (angles, 2), frequencies (k,) → (angles, 2k + 1) in the
    dtype of the frequencies. θ is computed in float64: near 0 and π a float32 cosine has lost it.
    """
    n, k = edges_of_angle.shape[0], frequencies.shape[0]
    theta = _cosine(unit, edges_of_angle).acos_().to(frequencies.dtype)
    phase = torch.outer(theta, frequencies)
    basis = phase.new_empty(n, 2 * k + 1)
    basis[:, 0] = 1 / math.sqrt(2)
    torch.sin(phase, out=basis[:, 1 : k + 1])
    torch.cos(phase, out=basis[:, k + 1 :])
    return basis.mul_(INV_SQRT_PI)


def backward(grad_basis: Tensor, basis: Tensor, frequencies: Tensor, transpose: Tensor) -> Tensor:
    """grad_θ of each angle together with its mirror, the angle at `transpose`, (angles,) float64.

    `basis` is the result of `forward`. d sin(fθ) = f cos(fθ), d cos(fθ) = -f sin(fθ); the basis holds both, already
    divided by √π.
    """
    k = frequencies.shape[0]
    slope = torch.mul(grad_basis[:, 1 : k + 1], basis[:, k + 1 :])
    slope.addcmul_(grad_basis[:, k + 1 :], basis[:, 1 : k + 1], value=-1)
    grad_theta = (slope @ frequencies).double()
    return grad_theta + grad_theta.index_select(0, transpose)


def backward_theta(grad_theta: Tensor, unit: Tensor, edges_of_angle: Tensor) -> Tensor:
    """Gradient with respect to the unit vectors, (edges, 3) float64, from that with respect to the angles (`backward`).

    With g_α = ∂E/∂(u·u') of angle α = (e, e') and its mirror together, grad_u[e] = Σ_{α received by e} g_α u[e'],
    because every angle has its mirror.
    """
    cosine = _cosine(unit, edges_of_angle)
    grad_cosine = grad_theta * (-SHRINK) * torch.rsqrt(1 - cosine * cosine)
    partner = unit.index_select(0, edges_of_angle[:, 1]).mul_(grad_cosine[:, None])
    return torch.zeros_like(unit).index_add_(0, edges_of_angle[:, 0], partner)


def _cosine(unit: Tensor, edges_of_angle: Tensor) -> Tensor:
    first, second = unit.index_select(0, edges_of_angle[:, 0]), unit.index_select(0, edges_of_angle[:, 1])
    return first.mul_(second).sum(1).mul_(SHRINK)
