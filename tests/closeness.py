"""How close is close enough: to rounding in float64, and in float32 no worse than plain torch."""

import torch
from torch import Tensor

EPS = 2.0**-53  # rounding unit of float64


def assert_no_worse_than_plain(
    fused: Tensor, plain: Tensor, exact: Tensor, *, slack: float = 2.0, floor: float = 1e-6, scale: float = 0.0
) -> None:
    """Error of `fused` ≤ slack × (error of the plain version in the same dtype) + floor × scale.

    `exact` is the plain version in float64. The floor is 16 roundings of float32, of the largest entry (or of `scale`,
    if larger: for sums whose terms are larger than what is left of them): below it, who errs less is luck.
    """
    assert fused.shape == plain.shape == exact.shape
    assert fused.dtype == plain.dtype
    if exact.numel() == 0:
        return
    fused, plain = fused.double(), plain.double()
    scale = max(float(exact.abs().max()), scale, 1e-30)
    budget = slack * (plain - exact).abs().max() + floor * scale
    error = (fused - exact).abs().max()
    assert error <= budget, f"error {error:.2e} exceeds budget {budget:.2e} (scale {scale:.2e})"


def assert_equal_to_rounding(
    found: Tensor, expected: Tensor, *, roundings: float = 4000, scale: float = 0.0, what: str = "error"
) -> None:
    """Both float64; they differ by at most `roundings` rounding units of the largest entry (or of `scale`, if larger).

    4000 is two sums over 64 features and one over a segment, each rounding amplified ten times by a LayerNorm; the
    budget is 4e-13 of the largest entry, where a single float32 rounding makes 6e-8 and a wrong term far more.
    """
    assert found.dtype == expected.dtype == torch.float64, what
    assert found.shape == expected.shape, what
    if expected.numel() == 0:
        return
    largest = max(float(expected.abs().max()), scale)
    error = float((found - expected).abs().max())
    assert error <= roundings * EPS * largest, f"{what} {error:.2e} at scale {largest:.2e}"
