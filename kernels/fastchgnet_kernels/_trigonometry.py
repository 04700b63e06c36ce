"""Sines, cosines and arc cosines in kernels, of angles in half turns (θ/π): reducing them to one turn is exact.

In float32 they are polynomials of least maximal error, found by the exchange algorithm; beside what rounding adds they
err by 3e-9 (sine), 2e-10 (cosine) and 4e-9 relative (arc sine). In float64 they are Taylor series up to the 21st and
the 22nd power, whose next terms are below 2e-18 here: Triton's own reduce any argument, and spill registers for it.
"""

import math

import triton
import triton.language as tl

PI: tl.constexpr = tl.constexpr(math.pi)
# A number to which these are added has no place for a fraction left, and its last bit is that of an integer.
ROUND_32: tl.constexpr = tl.constexpr(1.5 * 2**23)
ROUND_64: tl.constexpr = tl.constexpr(1.5 * 2**52)


@triton.jit
def reduced(t):
    """t - n for the integer n nearest to t, and whether n is odd: sin πt and cos πt are ± those of π(t - n)."""
    if t.dtype == tl.float64:
        rounded = t + ROUND_64
        n = rounded - ROUND_64
        bits = rounded.to(tl.int64, bitcast=True).to(tl.int32)
    else:
        rounded = t + ROUND_32
        n = rounded - ROUND_32
        bits = rounded.to(tl.int32, bitcast=True)
    return t - n, (bits & 1) == 1


@triton.jit
def sine(t, odd):
    """sin πt, or its opposite where `odd`, for t in [-1/2, 1/2]."""
    if t.dtype == tl.float64:
        x = t * PI
        s = tl.full(t.shape, 1.0, tl.float64)
        for k in tl.static_range(10):
            s = 1.0 - s * (x * x) * (1 / ((20 - 2 * k) * (21 - 2 * k)))
        s *= x
    else:
        z = t * t
        s = t * (3.14159258 + z * (-5.167706879 + z * (2.550031377 + z * (-0.5980451741 + z * 0.077220129))))
    return tl.where(odd, -s, s)


@triton.jit
def cosine(t, odd):
    """cos πt, or its opposite where `odd`, for t in [-1/2, 1/2]."""
    if t.dtype == tl.float64:
        x = t * PI
        c = tl.full(t.shape, 1.0, tl.float64)
        for k in tl.static_range(11):
            c = 1.0 - c * (x * x) * (1 / ((21 - 2 * k) * (22 - 2 * k)))
    else:
        z = t * t
        c = 0.234937559 - z * 0.02439671661
        c = 1.0 + z * (-4.934802137 + z * (4.058709164 + z * (-1.335212057 + z * c)))
    return tl.where(odd, -c, c)


@triton.jit
def arc_cosine(c, dtype: tl.constexpr):
    """acos(c)/π in `dtype` for c (float64) in (-1, 1).

    From asin √z on z ≤ 1/4: with c² = z it is π/2 - acos |c|, and beyond |c| = 1/2 with (1 - |c|)/2 = z half of
    acos |c|. So 1 - |c| is taken in float64, and near 0 nothing is lost. One step by sin(θ - θ₀), whose cube is below a
    rounding, makes float64 of it.
    """
    near = tl.abs(c) > 0.5
    z = tl.where(near, 0.5 - 0.5 * tl.abs(c), c * c).to(tl.float32)
    s = tl.where(near, tl.sqrt_rn(z), tl.abs(c).to(tl.float32))
    s *= 0.3183098848 + z * (
        0.05305204063 + z * (0.02385552675 + z * (0.01449907431 + z * (0.00759429117 + z * 0.01357134643)))
    )
    t = tl.where(near, 2.0 * s, 0.5 - s)
    t = tl.where(c < 0.0, 1.0 - t, t)
    if dtype == tl.float64:
        t = t.to(tl.float64)
        x, odd = reduced(t)
        t += (tl.sqrt((1.0 - c) * (1.0 + c)) * cosine(x, odd) - c * sine(x, odd)) / PI
    return t
