"""Radial Bessel basis under a polynomial envelope, in plain torch: the definition of the op."""

import math

import torch
from torch import Tensor


def envelope(x: Tensor, exponent: int) -> tuple[Tensor, Tensor]:
    """u(x) = 1 + a x^p + b x^(p+1) + c x^(p+2) for x < 1, else 0, and du/dx; u, u' and u'' vanish at x = 1."""
    p = exponent
    a, b, c = -(p + 1) * (p + 2) / 2, p * (p + 2), -p * (p + 1) / 2
    power = x ** (p - 1)
    u = 1 + power * x * (a + x * (b + x * c))
    slope = power * (a * p + x * (b * (p + 1) + x * (c * (p + 2))))
    inside = x < 1
    return torch.where(inside, u, 0.0), torch.where(inside, slope, 0.0)


def values(r: Tensor, frequencies: Tensor, cutoff: float, exponent: int) -> Tensor:
    """b_k(r) = √(2/c) sin(f_k r/c)/r · u(r/c).  r (n,), frequencies (k,) → (n, k) in the dtype of the frequencies.

    Computed in float64: phases reach 100, where a float32 number is wrong by 4e-6, more than all that follows adds.
    """
    dtype, r, frequencies = frequencies.dtype, r.double(), frequencies.double()
    u, _ = envelope(r / cutoff, exponent)
    scale = math.sqrt(2 / cutoff) * u / r
    return torch.outer(r / cutoff, frequencies).sin_().mul_(scale[:, None]).to(dtype)


def grad_length(grad_basis: Tensor, r: Tensor, frequencies: Tensor, cutoff: float, exponent: int) -> Tensor:
    """grad_r = Σ_k grad_k b_k'(r), with b' = √(2/c)/r · [f/c cos(f x) u + sin(f x) (u'/c - u/r)], x = r/c.

    (n,) float64, and computed in it, as in `values`.
    """
    r, frequencies = r.double(), frequencies.double()
    u, slope = envelope(r / cutoff, exponent)
    phase = torch.outer(r / cutoff, frequencies)
    cosine_part = torch.cos(phase).mul_(grad_basis) @ frequencies
    sine_part = phase.sin_().mul_(grad_basis).sum(1)
    return math.sqrt(2 / cutoff) / r * (cosine_part * u / cutoff + sine_part * (slope / cutoff - u / r))


def slope(r: Tensor, frequencies: Tensor, cutoff: float, exponent: int) -> Tensor:
    """b_k'(r), (n, k) in the dtype of the frequencies; computed in float64, as in `values`."""
    dtype, r, frequencies = frequencies.dtype, r.double(), frequencies.double()
    u, u_slope = envelope(r / cutoff, exponent)
    phase = torch.outer(r / cutoff, frequencies)
    scale = math.sqrt(2 / cutoff) / r
    cosine_part = torch.cos(phase) * frequencies * (scale * u / cutoff)[:, None]
    return (torch.sin(phase) * (scale * (u_slope / cutoff - u / r))[:, None] + cosine_part).to(dtype)
