"""The gated MLP of `reference` with a tangent, and the backward of both with the gradients of the weights.

Beside a value x travels its derivative ẋ along one direction of the inputs.  Rows of y have no mean (the caller sees to
that by weights without one), so a LayerNorm is ŷ = r y with r = 1/√(<y y> + ε), <·> a mean over the row.  After y:
    ḣ = silu'(z) ż,  ẏ = ḣ W₂,  ŷ̇ = r (ẏ - ŷ <ŷ ẏ>),  ȧ = γ ŷ̇
    p = a σ(a) σ(b),  ṗ = P_a ȧ + P_b ḃ,      P_a = σ(b) silu'(a),  P_b = silu(a) σ'(b), (a, b) core and gate
Backward, given g = ∂S/∂p and q = ∂S/∂ṗ, the bar of x being ∂S/∂x, t = γ ā and u = γ ǡ with ǡ that of ȧ:
    ǡ = q P_a,  ā = g P_a + q (P_aa ȧ + P_ab ḃ),  likewise for b
    ẏ̄ = r (u - ŷ <ŷ u>),  ȳ = r (t - <ŷ ẏ> ẏ̄ - <ŷ u> ŷ̇ - ŷ <ŷ t + ŷ̇ u>),  γ̄ = Σ ŷ ā + ŷ̇ ǡ
    ż̄ = silu'(z) (ẏ̄ W₂ᵀ),  z̄ = silu'(z) (ȳ W₂ᵀ) + silu''(z) ż (ẏ̄ W₂ᵀ)
    silu'' = (1 - σ) (2 silu' - silu),  P_aa = (1 - σ(a)) (2 P_a - p),  P_ab = P_a (1 - σ(b)),  P_bb = P_b (1 - 2 σ(b))
This is what differentiating twice needs: with S = Σ g p + Σ q ṗ, energies and forces are differentiated in one pass.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fastchgnet_kernels.gated_message.reference import SATURATED
from fastchgnet_kernels.gated_message.scratch import Scratch
from fastchgnet_kernels.gated_message.weights import NORM_EPS, GatedWeights


class Saved(NamedTuple):
    """Of one block of rows; [core | gate] lie side by side, (n, 2D) or (n, 2, D)."""

    hidden: tuple[Tensor, Tensor] | None  # (n, 2D) σ(z) and silu(z); None for a one-layer MLP
    y: Tensor  # (n, 2, D), overwritten by ŷ where there is a norm
    r: Tensor | None  # (n, 2, 1); None where there is no norm
    sigmoid: Tensor  # (n, 2, D) of a and b
    p: Tensor  # (n, D)
    slope: Tensor  # (n, 2, D) P_a and P_b
    tangent: "Tangent | None"


class Tangent(NamedTuple):
    z: Tensor  # (n, 2D)
    hidden: tuple[Tensor, Tensor] | None  # (n, 2D) silu'(z) and ḣ
    overlap: Tensor | None  # (n, 2, 1) <ŷ ẏ>
    y: Tensor  # (n, 2, D) ŷ̇, or ẏ where there is no norm
    a: Tensor  # (n, 2, D) ȧ and ḃ
    parts: Tensor  # (n, 2, D) P_a ȧ and P_b ḃ
    p: Tensor  # (n, D)


def forward(z: Tensor, z_dot: Tensor | None, w: GatedWeights, new: Scratch) -> Saved:
    """p of pre-activations z (n, 2D), and with `z_dot` its tangent; what lies in `new` is valid until asked again."""
    n, d = z.shape[0], z.shape[1] // 2
    y, hidden, r = z.view(n, 2, d), None, None
    if w.second is not None and w.second_bias is not None:
        sigma = torch.clamp(z, -SATURATED, SATURATED, out=new("sigma", n, 2 * d, z)).sigmoid_()
        hidden = (sigma, torch.mul(z, sigma, out=new("h", n, 2 * d, z)))
        y = _second(hidden[1], w.second, w.second_bias, new("y", n, 2 * d, z))
    a = y
    if w.scale is not None and w.shift is not None:
        r = torch.linalg.vector_norm(y, dim=2, keepdim=True).square_().div_(d).add_(NORM_EPS).rsqrt_()
        a = torch.addcmul(w.shift, y.mul_(r), w.scale, out=new("a", n, 2 * d, z).view(n, 2, d))
    sigmoid = torch.sigmoid(a, out=new("sigmoid", n, 2 * d, z).view(n, 2, d))
    core, gate = sigmoid.unbind(1)
    p = torch.mul(a[:, 0], core, out=new("p", n, d, z)).mul_(gate)
    slope = new("slope", n, 2 * d, z).view(n, 2, d)
    saved = Saved(hidden, y, r, sigmoid, p, slope, None)
    return saved if z_dot is None else saved._replace(tangent=_tangent(z_dot, saved, w, new))


def _tangent(z_dot: Tensor, saved: Saved, w: GatedWeights, new: Scratch) -> Tangent:
    n, d = z_dot.shape[0], z_dot.shape[1] // 2
    y_dot, hidden, overlap = z_dot.view(n, 2, d), None, None
    if saved.hidden is not None and w.second is not None:
        slope = _silu_slope(*saved.hidden, new("slope h", n, 2 * d, z_dot))
        hidden = (slope, torch.mul(slope, z_dot, out=new("h dot", n, 2 * d, z_dot)))
        y_dot = _second(hidden[1], w.second, None, new("y dot", n, 2 * d, z_dot))
    a_dot = y_dot
    if saved.r is not None and w.scale is not None:
        overlap = _row_mean(saved.y, y_dot, new)
        y_dot.addcmul_(saved.y, overlap, value=-1).mul_(saved.r)
        a_dot = torch.mul(y_dot, w.scale, out=new("a dot", n, 2 * d, z_dot).view(n, 2, d))
    parts = torch.mul(_slope(saved), a_dot, out=new("parts", n, 2 * d, z_dot).view(n, 2, d))
    p_dot = torch.add(parts[:, 0], parts[:, 1], out=new("p dot", n, d, z_dot))
    return Tangent(z_dot, hidden, overlap, y_dot, a_dot, parts, p_dot)


def backward(grad_p: Tensor, saved: Saved, w: GatedWeights, new: Scratch, grad_w: GatedWeights, out: Tensor) -> None:
    """Writes ∂S/∂z (n, 2D) of a value without tangent into `out`; adds the gradients of the weights to `grad_w`."""
    n, d = grad_p.shape
    grad = _slope(saved).mul_(grad_p[:, None])
    if saved.r is not None and w.scale is not None and grad_w.scale is not None and grad_w.shift is not None:
        product = torch.mul(grad, saved.y, out=new("product", n, 2 * d, grad_p).view(n, 2, d))
        grad_w.shift.add_(grad.sum(0))
        grad_w.scale.add_(product.sum(0))
        grad.mul_(w.scale).addcmul_(saved.y, _row_mean(saved.y, grad, new), value=-1).mul_(saved.r)
    if saved.hidden is None or w.second is None or grad_w.second_bias is None:
        out.view(n, 2, d).copy_(grad)
        return
    sigma, h = saved.hidden
    grad_w.second_bias.add_(grad.sum(0))
    grad_h = _second_backward(grad, h, w, grad_w, new("grad h", n, 2 * d, grad_p))
    torch.mul(grad_h, _silu_slope(sigma, h, new("slope h", n, 2 * d, grad_p)), out=out)


def dual_backward(
    grad_p: Tensor,
    grad_p_dot: Tensor,
    saved: Saved,
    w: GatedWeights,
    new: Scratch,
    grad_w: GatedWeights,
    *,
    out: Tensor,
    out_dot: Tensor,
) -> None:
    """Writes ∂S/∂z and ∂S/∂ż (n, 2D) into `out` and `out_dot`; adds the gradients of the weights to `grad_w`."""
    n, d = grad_p.shape
    tangent = saved.tangent
    assert tangent is not None
    grad = _curvature(saved, tangent, new).mul_(grad_p_dot[:, None]).addcmul_(saved.slope, grad_p[:, None])
    grad_dot = saved.slope.mul_(grad_p_dot[:, None])
    if saved.r is not None:
        _norm_backward(grad, grad_dot, saved, tangent, w, grad_w, new)
    if saved.hidden is None or tangent.hidden is None or grad_w.second_bias is None:
        out.view(n, 2, d).copy_(grad)
        out_dot.view(n, 2, d).copy_(grad_dot)
        return
    (sigma, h), (slope, h_dot) = saved.hidden, tangent.hidden
    grad_w.second_bias.add_(grad.sum(0))
    grad_h = _second_backward(grad, h, w, grad_w, new("grad h", n, 2 * d, grad_p))
    grad_h_dot = _second_backward(grad_dot, h_dot, w, grad_w, new("grad h dot", n, 2 * d, grad_p))
    half_curvature = torch.add(slope, h, alpha=-0.5, out=new("product", n, 2 * d, grad_p))
    half_curvature.addcmul_(half_curvature, sigma, value=-1).mul_(tangent.z)
    torch.mul(grad_h, slope, out=out).addcmul_(half_curvature, grad_h_dot, value=2)
    torch.mul(grad_h_dot, slope, out=out_dot)


def _norm_backward(
    grad: Tensor,
    grad_dot: Tensor,
    saved: Saved,
    tangent: Tangent,
    w: GatedWeights,
    grad_w: GatedWeights,
    new: Scratch,
) -> None:
    """ā, ǡ → ȳ, ẏ̄, in place; the gradients of scale and shift are added to `grad_w`."""
    n, _, d = grad.shape
    assert saved.r is not None
    assert tangent.overlap is not None
    assert w.scale is not None
    assert grad_w.scale is not None
    assert grad_w.shift is not None
    product = torch.mul(grad, saved.y, out=new("product", n, 2 * d, grad).view(n, 2, d))
    product.addcmul_(grad_dot, tangent.y)
    grad_w.shift.add_(grad.sum(0))
    grad_w.scale.add_(product.sum(0))
    # <ŷ t + ŷ̇ u>, with γ taken out of t and u
    along = torch.stack([product[:, half] @ w.scale[half] for half in (0, 1)], 1)[:, :, None] / d
    grad.mul_(w.scale)
    grad_dot.mul_(w.scale)
    overlap = _row_mean(saved.y, grad_dot, new)
    grad_dot.addcmul_(saved.y, overlap, value=-1).mul_(saved.r)
    grad.addcmul_(grad_dot, tangent.overlap, value=-1).addcmul_(tangent.y, overlap, value=-1)
    grad.addcmul_(saved.y, along, value=-1).mul_(saved.r)


def _curvature(saved: Saved, tangent: Tangent, new: Scratch) -> Tensor:
    """P_aa ȧ + P_ab ḃ and P_ab ȧ + P_bb ḃ, (n, 2, D)."""
    n, d = saved.p.shape
    out = new("curvature", n, 2 * d, saved.p).view(n, 2, d)
    (core, gate), (a_dot, b_dot), (part_a, part_b) = (x.unbind(1) for x in (saved.sigmoid, tangent.a, tangent.parts))
    half = torch.addcmul(part_a, saved.p, a_dot, value=-0.5, out=new("half", n, d, saved.p))
    half.addcmul_(half, core, value=-1)  # P_aa ȧ / 2
    mixed = torch.mul(saved.slope[:, 0], b_dot, out=new("mixed", n, d, saved.p))
    mixed.addcmul_(mixed, gate, value=-1)  # P_ab ḃ
    torch.add(mixed, half, alpha=2, out=out[:, 0])
    torch.add(part_a, part_b, alpha=2, out=mixed)
    torch.addcmul(tangent.p, gate, mixed, value=-1, out=out[:, 1])
    return out


def _slope(saved: Saved) -> Tensor:
    """P_a = p + σ(a) (σ(b) - p) and P_b = p - p σ(b), (n, 2, D), into the place for them."""
    core, gate = saved.sigmoid.unbind(1)
    torch.sub(gate, saved.p, out=saved.slope[:, 0]).mul_(core).add_(saved.p)
    torch.addcmul(saved.p, saved.p, gate, value=-1, out=saved.slope[:, 1])
    return saved.slope


def _silu_slope(sigma: Tensor, h: Tensor, out: Tensor) -> Tensor:
    """silu'(z) = σ + h (1 - σ)."""
    return torch.addcmul(h, h, sigma, value=-1, out=out).add_(sigma)


def _row_mean(x: Tensor, y: Tensor, new: Scratch) -> Tensor:
    """<x y>, (n, 2, 1). The sum as a product of matrices is the faster one."""
    n, _, d = x.shape
    product = torch.mul(x, y, out=new("row product", n, 2 * d, x).view(n, 2, d))
    return (product.view(2 * n, d) @ x.new_full((d, 1), 1 / d)).view(n, 2, 1)


def _second(h: Tensor, second: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """h W₂ + b₂ (n, 2, D)."""
    d = second.shape[1]
    for half, columns in enumerate((slice(0, d), slice(d, 2 * d))):
        if bias is None:
            torch.mm(h[:, columns], second[half], out=out[:, columns])
        else:
            torch.addmm(bias[half], h[:, columns], second[half], out=out[:, columns])
    return out.view(-1, 2, d)


def _second_backward(grad: Tensor, h: Tensor, w: GatedWeights, grad_w: GatedWeights, out: Tensor) -> Tensor:
    """grad W₂ᵀ into `out` (n, 2D); adds hᵀ grad to the gradient of W₂."""
    assert w.second is not None
    assert grad_w.second is not None
    d = w.second.shape[1]
    for half, columns in enumerate((slice(0, d), slice(d, 2 * d))):
        torch.mm(grad[:, half], w.second[half].T, out=out[:, columns])
        grad_w.second[half].addmm_(h[:, columns].T, grad[:, half])
    return out
