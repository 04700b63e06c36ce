"""The Fourier basis of angles between the edges of a centre."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastchgnet_kernels import angle_basis
from tests.closeness import assert_equal_to_rounding, assert_no_worse_than_plain
from tests.conftest import PoisonedMemory
from tests.kernels.gated import SIZES

# Edges of each centre; d of them make d (d - 1) angles: 0, 2, 2, 62, 254 and 256 in all.
DEGREES = [[], [1, 2, 0, 1], [2], [6, 5, 3, 2, 2], [11, 9, 7, 6], [16, 4, 2, 2]]
TINY = 1e-6  # 1 - SHRINK


def units(n: int, seed: int = 0) -> Tensor:
    """Random unit vectors (n, 3), float64."""
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed + n), dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)


def stars(degrees: list[int]) -> tuple[Tensor, Tensor]:
    """All ordered pairs of edges of a centre (angles, 2), and the place of each pair's mirror (angles,)."""
    first_of = itertools.accumulate(degrees, initial=0)
    pairs = [
        pair for d, e in zip(degrees, first_of, strict=False) for pair in itertools.permutations(range(e, e + d), 2)
    ]
    place = {pair: k for k, pair in enumerate(pairs)}
    mirror = [place[b, a] for a, b in pairs]
    return torch.tensor(pairs, dtype=torch.int32).view(-1, 2), torch.tensor(mirror, dtype=torch.int32)


def frequencies(k: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Near 1, 2, 3 …, as in trained models."""
    noise = 0.05 * torch.randn(k, generator=torch.Generator().manual_seed(k))
    return (torch.arange(1, k + 1) + noise).to(dtype)


def looped(unit: Tensor, angles: Tensor, f: Tensor) -> Tensor:
    """The formula, one angle at a time; differentiable by autograd."""
    rows = []
    for a, b in angles.tolist():
        theta = torch.acos((1 - TINY) * (unit[a, 0] * unit[b, 0] + unit[a, 1] * unit[b, 1] + unit[a, 2] * unit[b, 2]))
        constant = torch.full_like(theta, 1 / math.sqrt(2))[None]
        rows.append(torch.cat([constant, torch.sin(f * theta), torch.cos(f * theta)]) / math.sqrt(math.pi))
    return torch.stack(rows) if rows else f.new_zeros(0, 2 * len(f) + 1)


def received(unit: Tensor, angles: Tensor) -> Tensor:
    """Of which angles each edge is the first."""
    edges = torch.arange(len(unit) + 1, dtype=angles.dtype)
    return torch.searchsorted(angles[:, 0].contiguous(), edges, out_int32=True)


def gradient(grad_basis: Tensor, unit: Tensor, angles: Tensor, f: Tensor, mirror: Tensor) -> Tensor:
    grad_theta = angle_basis.backward(grad_basis, angle_basis.forward(unit, angles, f), f, mirror)
    return angle_basis.backward_theta(grad_theta, unit, angles, received(unit, angles))


def autograd_gradient(grad_basis: Tensor, unit: Tensor, angles: Tensor, f: Tensor) -> Tensor:
    """What autograd makes of the loops."""
    unit = unit.clone().requires_grad_()
    basis = looped(unit, angles, f)
    return torch.zeros_like(unit) if len(angles) == 0 else torch.autograd.grad(basis, unit, grad_basis)[0]


def random_like(basis: Tensor) -> Tensor:
    return torch.randn(basis.shape, generator=torch.Generator().manual_seed(5)).to(basis.dtype)


class AngleBasis(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, unit: Tensor, angles: Tensor, f: Tensor, mirror: Tensor) -> Tensor:
        ctx.rest = unit, angles, f, mirror
        return angle_basis.forward(unit, angles, f)

    @staticmethod
    def backward(ctx: Any, grad_basis: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient(grad_basis, *ctx.rest), None, None, None


@pytest.mark.parametrize("n_angles", SIZES)
def test_forward_is_the_formula_angle_by_angle(n_angles: int) -> None:
    unit, f = units(40), frequencies(15)
    angles = torch.randint(40, (n_angles, 2), generator=torch.Generator().manual_seed(n_angles), dtype=torch.int32)
    # An edge with itself is at θ = 1.4e-3: acos there turns a rounding of the cosine into 700.
    assert_equal_to_rounding(angle_basis.forward(unit, angles, f), looped(unit, angles, f), roundings=15 * 1000)


@pytest.mark.parametrize("degrees", [[2], [3, 1, 0, 2], [5, 4, 3, 2]], ids=str)
def test_backward_is_the_derivative(degrees: list[int]) -> None:
    angles, mirror = stars(degrees)
    many = (units(sum(degrees), seed) for seed in itertools.count())
    unit = next(u for u in many if (u[angles[:, 0]] * u[angles[:, 1]]).sum(1).abs().max() < 0.95).requires_grad_()
    f = frequencies(4)
    # With sinθ > 0.3 third derivatives by the cosine are below 3/sin⁵θ + f³/sin³θ = 4e3: truncation 1e-10/6 · 4e3.
    assert torch.autograd.gradcheck(AngleBasis.apply, (unit, angles, f, mirror), eps=1e-5, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("degrees", DEGREES, ids=str)
def test_backward_is_what_autograd_makes_of_the_formula(degrees: list[int]) -> None:
    unit, f, (angles, mirror) = units(sum(degrees)), frequencies(15), stars(degrees)
    grad_basis = random_like(angle_basis.forward(unit, angles, f))
    expected = autograd_gradient(grad_basis, unit, angles, f)
    # The smallest angle of the random edges is above 0.03: 1/sinθ, squared, multiplies a rounding by 1000.
    assert_equal_to_rounding(gradient(grad_basis, unit, angles, f, mirror), expected, roundings=15 * 1000)


@pytest.mark.parametrize("degrees", DEGREES, ids=str)
def test_float32_is_no_worse_than_plain(degrees: list[int]) -> None:
    unit, (angles, mirror) = units(sum(degrees)).float(), stars(degrees)
    f = frequencies(15, torch.float32)
    found = angle_basis.forward(unit.double(), angles, f)
    assert found.dtype == torch.float32
    assert_no_worse_than_plain(found, looped(unit, angles, f), looped(unit.double(), angles, f.double()))
    grad_basis = random_like(found)
    grad = gradient(grad_basis, unit.double(), angles, f, mirror)
    plain = autograd_gradient(grad_basis, unit, angles, f)
    exact = autograd_gradient(grad_basis.double(), unit.double(), angles, f.double())
    assert grad.dtype == torch.float64
    assert_no_worse_than_plain(grad, plain.double(), exact)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["parallel", "antiparallel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_for_exactly_straight_angles(sign: float, dtype: torch.dtype) -> None:
    first = units(5)
    unit = torch.stack([first, sign * first], 1).view(-1, 3)
    angles, mirror = stars([2] * 5)
    f = frequencies(15, dtype)
    basis = angle_basis.forward(unit, angles, f)
    grad = gradient(random_like(basis), unit, angles, f, mirror)
    assert basis.isfinite().all()
    assert grad.isfinite().all()
    expected = autograd_gradient(random_like(basis).double(), unit, angles, f.double())
    assert expected.abs().max() > 100  # 1/sinθ is 700
    # The gradient's 1/sinθ turns a rounding ε of the cosine into ε/sin²θ = 5e5 ε of itself; in float32 the basis,
    # which the gradient is made of, is rounded 1 + f times and its terms cancel in part.
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(grad, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["parallel", "antiparallel"])
def test_nearly_straight_angles_keep_float32_accuracy_in_float32(sign: float) -> None:
    """A float32 cosine of 1 - 1e-6 has lost θ = 1.4e-3 by 4e-5; θ is computed in float64, so only f θ is rounded."""
    unit = units(2)
    unit[1] = sign * unit[0] + 1e-4 * unit[1]
    unit[1] /= unit[1].norm()
    angles, f = stars([2])[0], frequencies(15, torch.float32)
    exact = looped(unit, angles, f.double())
    error = (angle_basis.forward(unit, angles, f).double() - exact).abs().max()
    plain_error = (looped(unit.float(), angles, f).double() - exact).abs().max()
    assert plain_error > 2e-5
    assert error < 15 * math.pi * 2**-23  # the phase f θ, rounded twice


@pytest.mark.parametrize("degrees", DEGREES, ids=str)
def test_nothing_is_read_before_it_is_written(degrees: list[int], poisoned_memory: PoisonedMemory) -> None:
    unit, f, (angles, mirror) = units(sum(degrees)), frequencies(4), stars(degrees)

    def compute() -> tuple[Tensor, Tensor]:
        basis = angle_basis.forward(unit, angles, f)
        return basis, gradient(basis, unit, angles, f, mirror)

    for clean, poisoned in zip(compute(), poisoned_memory.run(compute), strict=True):
        assert clean.isfinite().all()
        assert torch.equal(clean, poisoned)


def test_the_inputs_are_left_as_they_were() -> None:
    unit, f, (angles, mirror) = units(10), frequencies(4), stars([6, 4])
    basis = angle_basis.forward(unit, angles, f)
    given = basis, unit, angles, f, mirror
    before = [tensor.clone() for tensor in given]
    grad_theta = angle_basis.backward(random_like(basis), basis, f, mirror)
    angle_basis.backward_theta(grad_theta, unit, angles, received(unit, angles))
    assert all(map(torch.equal, given, before))
