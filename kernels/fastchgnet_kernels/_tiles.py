"""What kernels do with tiles that they have loaded: products, σ, SiLU and LayerNorm, each with its derivative below it.

NATIVE is false in Triton's interpreter, which knows no assembly, and in float64. PARTS is how many numbers of 11 bits
(TF32) stand for a factor of float32, for the units that multiply those: 2, a high part and the rest, keep 21 bits or
more of it in three products; 1, the high part, is one product. It is 0 in float64, which has units of its own.
"""

import triton
import triton.language as tl

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
NORM_EPS: tl.constexpr = tl.constexpr(1e-5)


@triton.jit
def high(x):
    """x rounded to 11 bits, a TF32 number; the rest is at most 2⁻¹¹ |x|."""
    return ((x.to(tl.uint32, bitcast=True) + 0x1000) & 0xFFFFE000).to(tl.float32, bitcast=True)


@triton.jit
def product(a, b, total, PARTS: tl.constexpr):
    """total + a b. Of two parts, the product of both rests is left out: 2⁻²² of |a| |b|; of one, 2⁻¹⁰ at most."""
    if PARTS == 0:
        total = tl.dot(a, b, total, out_dtype=total.dtype)
    else:  # not after a return above, which does not keep Triton from compiling what follows
        a_high, b_high = high(a), high(b)
        if PARTS == 2:
            total = tl.dot(a - a_high, b_high, total)
            total = tl.dot(a_high, b - b_high, total)
        total = tl.dot(a_high, b_high, total)
    return total


@triton.jit
def sum_of_chosen(chosen, b, total, PARTS: tl.constexpr):
    """total + a b of a matrix a of zeros and ones, which are TF32 numbers."""
    if PARTS == 0:
        total = tl.dot(chosen, b, total, out_dtype=total.dtype)
    else:
        b_high = high(b)
        if PARTS == 2:
            total = tl.dot(chosen, b - b_high, total)
        total = tl.dot(chosen, b_high, total)
    return total


@triton.jit
def reciprocal(x, NATIVE: tl.constexpr):
    """1/x; natively within one unit in the last place, one instruction where a division takes eight."""
    if NATIVE:
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return 1.0 / x


@triton.jit
def sigmoid(x, NATIVE: tl.constexpr):
    """σ(x) = 1/(1 + 2^(-x log₂e)), which is 0 where the power is infinite."""
    return reciprocal(1.0 + tl.exp2(-x * LOG2_E), NATIVE)


@triton.jit
def silu_grad(x, sigma):
    """silu'(x) = σ + x σ (1 - σ), from σ(x)."""
    return sigma + x * sigma * (1.0 - sigma)


@triton.jit
def standardise(y, D: tl.constexpr):
    """ŷ = (y - mean) · rstd of every row, and rstd (rows,)."""
    y = y - (tl.sum(y, 1) / D)[:, None]
    rstd = tl.rsqrt(tl.sum(y * y, 1) / D + NORM_EPS)
    return y * rstd[:, None], rstd


@triton.jit
def standardise_grad(grad, y, rstd, D: tl.constexpr):
    """grad_y = rstd (g - mean g - ŷ mean(ŷ g)), from ŷ and rstd."""
    mean = (tl.sum(grad, 1) / D)[:, None]
    along = (tl.sum(grad * y, 1) / D)[:, None]
    return (grad - mean - y * along) * rstd[:, None]
