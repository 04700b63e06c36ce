"""The Fourier basis of angles by its kernels, run by Triton's interpreter, against the formula in float64."""

import math

import pytest
import torch
from torch import Tensor

from ase_fastchgnet.model.checkpoint import load_checkpoint
from fastchgnet_kernels import angle_basis
from fastchgnet_kernels.angle_basis import reference
from tests.closeness import assert_equal_to_rounding, assert_no_worse_than_plain
from tests.conftest import PoisonedMemory
from tests.kernels.gated import SIZES
from tests.kernels.test_angle_basis import (
    DEGREES,
    autograd_gradient,
    frequencies,
    gradient,
    looped,
    random_like,
    received,
    stars,
    units,
)


def pairs_at(theta: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors, two for each of the angles, and which two."""
    first, other = units(len(theta)), units(len(theta), seed=1)
    across = other - (first * other).sum(1, keepdim=True) * first
    across /= across.norm(dim=1, keepdim=True)
    second = first * theta.cos()[:, None] + across * theta.sin()[:, None]
    return torch.stack([first, second], 1).view(-1, 3), torch.arange(2 * len(theta), dtype=torch.int32).view(-1, 2)


def angles_everywhere() -> Tensor:
    """0, π/3, π/2, 2π/3, π, 600 between them, and 200 that come close to 0 and to π."""
    small = torch.logspace(-9, -1, 100, dtype=torch.float64)
    marked = torch.tensor([0, math.pi / 3, math.pi / 2, 2 * math.pi / 3, math.pi], dtype=torch.float64)
    return torch.cat([marked, torch.linspace(0, math.pi, 600, dtype=torch.float64), small, math.pi - small])


@pytest.mark.parametrize("n", SIZES)
def test_forward_is_the_formula_angle_by_angle(n: int, poisoned_memory: PoisonedMemory) -> None:
    unit, f = units(40), frequencies(15)
    angles = torch.randint(40, (n, 2), generator=torch.Generator().manual_seed(n), dtype=torch.int32)
    found = poisoned_memory.run(lambda: angle_basis.forward(unit, angles, f))
    # An edge with itself is at θ = 1.4e-3: acos there turns a rounding of the cosine into 700.
    assert_equal_to_rounding(found, looped(unit, angles, f), roundings=15 * 1000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_released_frequencies_are_as_accurate_as_the_kernel_says(dtype: torch.dtype) -> None:
    f = load_checkpoint("0.3.0").parameters.angle_frequencies.to(dtype)
    unit, angles = pairs_at(angles_everywhere())
    exact = reference.forward(unit, angles, f.double())
    error = (angle_basis.forward(unit, angles, f) - exact).abs().max()
    # In float64 the definition itself turns a rounding of a cosine into 700 near 0 and π.
    assert error < (3e-6 if dtype == torch.float32 else 16 * 1000 * 2**-53)


@pytest.mark.parametrize("degrees", DEGREES, ids=str)
def test_gradients_are_what_autograd_makes_of_the_formula(degrees: list[int], poisoned_memory: PoisonedMemory) -> None:
    unit, f, (angles, mirror) = units(sum(degrees)), frequencies(15), stars(degrees)
    grad_basis = random_like(reference.forward(unit, angles, f))
    found = poisoned_memory.run(lambda: gradient(grad_basis, unit, angles, f, mirror))
    # The smallest angle of the random edges is above 0.03: 1/sinθ, squared, multiplies a rounding by 1000.
    assert_equal_to_rounding(found, autograd_gradient(grad_basis, unit, angles, f), roundings=15 * 1000)


@pytest.mark.parametrize("degrees", DEGREES, ids=str)
def test_float32_is_no_worse_than_plain(degrees: list[int], poisoned_memory: PoisonedMemory) -> None:
    unit, f, (angles, mirror) = units(sum(degrees)), frequencies(15, torch.float32), stars(degrees)
    basis = poisoned_memory.run(lambda: angle_basis.forward(unit, angles, f))
    assert_no_worse_than_plain(basis, reference.forward(unit, angles, f), reference.forward(unit, angles, f.double()))
    grad_basis = random_like(basis)
    found = poisoned_memory.run(lambda: angle_basis.backward(grad_basis, basis, f, mirror))
    exact = reference.backward(grad_basis.double(), basis.double(), f.double(), mirror)
    assert_no_worse_than_plain(found, reference.backward(grad_basis, basis, f, mirror), exact)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["parallel", "antiparallel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_and_right_for_exactly_straight_angles(sign: float, dtype: torch.dtype) -> None:
    first = units(5)
    unit = torch.stack([first, sign * first], 1).view(-1, 3)
    angles, mirror = stars([2] * 5)
    f = frequencies(15, dtype)
    grad_basis = random_like(angle_basis.forward(unit, angles, f))
    expected = autograd_gradient(grad_basis.double(), unit, angles, f.double())
    assert expected.abs().max() > 100  # 1/sinθ is 700
    # As for the definition: 1/sinθ turns a rounding ε of the cosine into ε/sin²θ = 5e5 ε of itself; in float32 the
    # basis, which the gradient is made of, is rounded 1 + f times and its terms cancel in part.
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    found = gradient(grad_basis, unit, angles, f, mirror)
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_edges_that_receive_no_angle_have_no_gradient(poisoned_memory: PoisonedMemory) -> None:
    """They may come first, last and between, and one may receive more than are added at a time."""
    unit, (angles, _) = units(50), stars([1, 1, 40, 1, 3, 1, 1, 1, 1])
    grad_theta = torch.randn(len(angles), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ptr = received(unit, angles)
    found = poisoned_memory.run(lambda: angle_basis.backward_theta(grad_theta, unit, angles, ptr))
    assert_equal_to_rounding(found, reference.backward_theta(grad_theta, unit, angles), roundings=15 * 1000)
    assert (found[[0, 1, 42, 46, 49]] == 0).all()


def test_gradients_of_unit_vectors_can_be_differentiated() -> None:
    unit, (angles, _) = units(9), stars([5, 4])
    grad_theta = torch.ones(len(angles), dtype=torch.float64, requires_grad=True)
    angle_basis.backward_theta(grad_theta, unit, angles, received(unit, angles)).square().sum().backward()
    assert grad_theta.grad is not None
    assert grad_theta.grad.abs().min() > 0
