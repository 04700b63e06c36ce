"""The gated MLP of `reference` with a tangent, and the backward of both with the gradients of the weights.

Beside a value x travels its derivative ẋ along one direction of the inputs.  Forward, after y (n, 2, D):
    ḣ = silu'(z) ż,  ẏ = ḣ W₂,  ŷ̇ = rstd Π ẏ with Π = 1 - 1 1ᵀ/D - ŷ ŷᵀ/D,  ȧ = γ ŷ̇,
    p = a σ(a) σ(b),  ṗ = P_a ȧ + P_b ḃ,      P_a = σ(b) silu'(a),  P_b = silu(a) σ'(b), (a, b) core and gate.
Backward, given ∂S/∂p = g and ∂S/∂ṗ = q, the bar of x being ∂S/∂x and u = γ ǡ:
    ǡ = q P_a,  ā = g P_a + q (P_aa ȧ + P_ab ḃ),  likewise b̄
    ẏ̄ = rstd Π u,  ȳ = rstd Π (γ ā - rstd (u <ŷ ẏ> + ẏ <u ŷ>)) - rstd ŷ <u ŷ̇>,   <·> a mean over the row
    ż̄ = silu'(z) (ẏ̄ W₂ᵀ),  z̄ = silu'(z) (ȳ W₂ᵀ) + silu''(z) ż (ẏ̄ W₂ᵀ)
This is what differentiating twice needs: with S = Σ g p + Σ q ṗ, energies and forces are differentiated in one pass.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fastchgnet_kernels.gated_message.reference import SATURATED
from fastchgnet_kernels.gated_message.scratch import Scratch
from fastchgnet_kernels.gated_message.weights import NORM_EPS

aten = torch.ops.aten


class PackedWeights(NamedTuple):
    """The weights after the first linear, core and gate in one tensor; also used for their gradients."""

    second: Tensor | None  # (2, D, D) input-major; None for a one-layer MLP
    second_bias: Tensor | None  # (2, D)
    scale: Tensor | None  # (2, D); None without LayerNorm
    shift: Tensor | None  # (2, D)

    def zeros(self) -> "PackedWeights":
        """Where gradients are added up."""
        return PackedWeights(*(None if x is None else torch.zeros_like(x) for x in self))


class Saved(NamedTuple):
    """Of one block of rows. [core | gate] lie side by side in (n, 2D), also as (n, 2, D)."""

    z: Tensor  # (n, 2D)
    hidden: tuple[Tensor, Tensor] | None  # (n, 2D) σ(z) and silu(z); None for a one-layer MLP
    y: Tensor  # (n, 2D)
    norm: tuple[Tensor, Tensor, Tensor] | None  # ŷ (2n, D), mean and rstd (2n, 1)
    a: Tensor  # (n, 2, D)
    sigmoid: Tensor  # (n, 2, D) of a
    p: Tensor  # (n, D)
    tangent: "Tangent | None"


class Tangent(NamedTuple):
    z: Tensor  # (n, 2D)
    h: Tensor | None  # (n, 2D)
    slope_h: Tensor | None  # (n, 2D) silu'(z)
    y: Tensor  # (n, 2D)
    normed: Tensor  # (n, 2, D) ŷ̇, or ẏ where there is no norm
    a: Tensor  # (n, 2, D)
    slope: Tensor  # (n, 2, D) P_a and P_b
    p: Tensor  # (n, D)


def forward(z: Tensor, z_dot: Tensor | None, w: PackedWeights, new: Scratch) -> Saved:
    """p of pre-activations z (n, 2D), and with `z_dot` its tangent; what lies in `new` is valid until asked again."""
    n, d = z.shape[0], z.shape[1] // 2
    y, hidden = z, None
    if w.second is not None and w.second_bias is not None:
        sigma = torch.clamp(z, -SATURATED, SATURATED, out=new("sigma", n, 2 * d, z)).sigmoid_()
        h = torch.mul(z, sigma, out=new("h", n, 2 * d, z))
        hidden, y = (sigma, h), new("y", n, 2 * d, z)
        for half, columns in enumerate((slice(0, d), slice(d, 2 * d))):
            torch.addmm(w.second_bias[half], h[:, columns], w.second[half], out=y[:, columns])
    a, norm = y.view(n, 2, d), None
    if w.scale is not None and w.shift is not None:
        norm = torch.native_layer_norm(y.view(2 * n, d), [d], None, None, NORM_EPS)
        a = torch.addcmul(w.shift, norm[0].view(n, 2, d), w.scale, out=new("a", n, 2 * d, z).view(n, 2, d))
    sigmoid = torch.sigmoid(a, out=new("sigmoid", n, 2 * d, z).view(n, 2, d))
    p = torch.mul(a[:, 0], sigmoid[:, 0], out=new("p", n, d, z)).mul_(sigmoid[:, 1])
    saved = Saved(z, hidden, y, norm, a, sigmoid, p, None)
    return saved if z_dot is None else saved._replace(tangent=_tangent(z_dot, saved, w, new))


def backward(
    grad_p: Tensor, grad_p_dot: Tensor | None, saved: Saved, w: PackedWeights, new: Scratch, grad_w: PackedWeights
) -> tuple[Tensor, Tensor | None]:
    """∂S/∂z and ∂S/∂ż (n, 2D); adds the gradients of the weights to `grad_w`."""
    n, d = grad_p.shape
    tangent = saved.tangent
    if tangent is None or grad_p_dot is None:
        slope = _slope(saved, new)
        grad_a = slope.mul_(grad_p[:, None])
        grad_y = grad_a.view(n, 2 * d)
        if saved.norm is not None and w.scale is not None and grad_w.scale is not None and grad_w.shift is not None:
            grad_w.shift.add_(grad_a.sum(0))
            grad_w.scale.add_((grad_a * saved.norm[0].view(n, 2, d)).sum(0))
            grad_y = _norm_adjoint(grad_a.mul_(w.scale), saved)
        if saved.hidden is None:
            return grad_y, None
        grad_h = _second_backward(grad_y, saved.hidden[1], w, new("grad h", n, 2 * d, grad_p), grad_w, bias=True)
        return grad_h.mul_(_silu_slope(*saved.hidden, new("slope h", n, 2 * d, grad_p))), None

    grad_a_dot = torch.mul(tangent.slope, grad_p_dot[:, None], out=new("grad a dot", n, 2 * d, grad_p).view(n, 2, d))
    grad_a = _curvature(saved, tangent, new)
    grad_a.mul_(grad_p_dot[:, None]).addcmul_(tangent.slope, grad_p[:, None])
    grad_y_dot, grad_y = grad_a_dot.view(n, 2 * d), grad_a.view(n, 2 * d)
    if saved.norm is not None and w.scale is not None and grad_w.scale is not None and grad_w.shift is not None:
        grad_w.shift.add_(grad_a.sum(0))
        product = torch.mul(grad_a, saved.norm[0].view(n, 2, d), out=new("product", n, 2 * d, grad_p).view(n, 2, d))
        grad_w.scale.add_(product.addcmul_(grad_a_dot, tangent.normed).sum(0))
        grad_y_dot, grad_y = _norm_backward(grad_a_dot.mul_(w.scale), grad_a.mul_(w.scale), saved, tangent)
    if saved.hidden is None or tangent.h is None or tangent.slope_h is None:
        return grad_y, grad_y_dot
    sigma, h = saved.hidden
    grad_h = _second_backward(grad_y, h, w, new("grad h", n, 2 * d, grad_p), grad_w, bias=True)
    grad_h_dot = _second_backward(grad_y_dot, tangent.h, w, new("grad h dot", n, 2 * d, grad_p), grad_w, bias=False)
    # silu'' = σ (1 - σ) (2 + z - 2 silu(z))
    curvature = torch.addcmul(sigma, sigma, sigma, value=-1, out=new("curvature h", n, 2 * d, grad_p))
    curvature.mul_(torch.add(saved.z, h, alpha=-2, out=new("product", n, 2 * d, grad_p)).add_(2.0))
    grad_z = grad_h.mul_(tangent.slope_h).addcmul_(curvature.mul_(tangent.z), grad_h_dot)
    return grad_z, grad_h_dot.mul_(tangent.slope_h)


def _tangent(z_dot: Tensor, saved: Saved, w: PackedWeights, new: Scratch) -> Tangent:
    n, d = z_dot.shape[0], z_dot.shape[1] // 2
    h_dot = slope_h = None
    y_dot = z_dot
    if saved.hidden is not None and w.second is not None:
        slope_h = _silu_slope(*saved.hidden, new("slope h", n, 2 * d, z_dot))
        h_dot = torch.mul(slope_h, z_dot, out=new("h dot", n, 2 * d, z_dot))
        y_dot = new("y dot", n, 2 * d, z_dot)
        for half, columns in enumerate((slice(0, d), slice(d, 2 * d))):
            torch.mm(h_dot[:, columns], w.second[half], out=y_dot[:, columns])
    a_dot = normed = y_dot.view(n, 2, d)
    if saved.norm is not None and w.scale is not None:
        normed = _norm_adjoint(a_dot, saved).view(n, 2, d)  # Π is symmetric
        a_dot = torch.mul(normed, w.scale, out=new("a dot", n, 2 * d, z_dot).view(n, 2, d))
    slope = _slope(saved, new)
    p_dot = torch.mul(slope[:, 0], a_dot[:, 0], out=new("p dot", n, d, z_dot)).addcmul_(slope[:, 1], a_dot[:, 1])
    return Tangent(z_dot, h_dot, slope_h, y_dot, normed, a_dot, slope, p_dot)


def _slope(saved: Saved, new: Scratch) -> Tensor:
    """P_a = p + σ(a) (σ(b) - p) and P_b = p - p σ(b), (n, 2, D)."""
    n, d = saved.p.shape
    slope = new("slope", n, 2 * d, saved.p).view(n, 2, d)
    core, gate = saved.sigmoid.unbind(1)
    torch.sub(gate, saved.p, out=slope[:, 0]).mul_(core).add_(saved.p)
    torch.addcmul(saved.p, saved.p, gate, value=-1, out=slope[:, 1])
    return slope


def _curvature(saved: Saved, tangent: Tangent, new: Scratch) -> Tensor:
    """P_aa ȧ + P_ab ḃ and P_ab ȧ + P_bb ḃ, (n, 2, D).

    P_aa = σ(b) σ(a) (1 - σ(a)) (2 + a - 2 silu(a)),  P_ab = P_a (1 - σ(b)),  P_bb = P_b (1 - 2 σ(b)).
    """
    n, d = saved.p.shape
    out = new("curvature", n, 2 * d, saved.p).view(n, 2, d)
    core, gate = saved.sigmoid.unbind(1)
    a_dot, b_dot = tangent.a.unbind(1)
    rest = torch.neg(gate, out=new("rest", n, d, saved.p)).add_(1.0)  # 1 - σ(b)
    mixed = torch.mul(tangent.slope[:, 0], rest, out=new("mixed", n, d, saved.p))  # P_ab
    product = new("half", n, d, saved.p)
    torch.mul(saved.a[:, 0], core, out=product).mul_(-2.0).add_(saved.a[:, 0]).add_(2.0)
    torch.addcmul(core, core, core, value=-1, out=out[:, 0]).mul_(gate).mul_(product).mul_(a_dot)
    out[:, 0].addcmul_(mixed, b_dot)
    torch.sub(rest, gate, out=out[:, 1]).mul_(tangent.slope[:, 1]).mul_(b_dot).addcmul_(mixed, a_dot)
    return out


def _norm_adjoint(grad: Tensor, saved: Saved) -> Tensor:
    """rstd Π grad, (n, 2D)."""
    assert saved.norm is not None
    n, two_d = saved.y.shape
    _, mean, rstd = saved.norm
    rows, mask = (2 * n, two_d // 2), [True, False, False]
    grad = grad.reshape(rows)
    out: Tensor = aten.native_layer_norm_backward(grad, saved.y.view(rows), rows[1:], mean, rstd, None, None, mask)[0]
    return out.view(n, two_d)


def _norm_backward(u: Tensor, grad: Tensor, saved: Saved, tangent: Tangent) -> tuple[Tensor, Tensor]:
    """ẏ̄ and ȳ (n, 2D) from u = γ ǡ and γ ā, which it overwrites."""
    assert saved.norm is not None
    n, two_d = saved.y.shape
    normed, _, rstd = (x.view(n, 2, -1) for x in saved.norm)
    y_dot = tangent.y.view(n, 2, -1)
    by_value = (normed * y_dot).mean(2, keepdim=True) * rstd
    by_slope = (normed * u).mean(2, keepdim=True) * rstd
    by_rstd = (tangent.normed * u).mean(2, keepdim=True) * rstd
    grad.addcmul_(u, by_value, value=-1).addcmul_(y_dot, by_slope, value=-1)
    grad_y = _norm_adjoint(grad, saved).view(n, 2, -1).addcmul_(normed, by_rstd, value=-1)
    return _norm_adjoint(u, saved), grad_y.view(n, two_d)


def _silu_slope(sigma: Tensor, h: Tensor, out: Tensor) -> Tensor:
    """silu'(z) = σ + h (1 - σ)."""
    return torch.addcmul(h, h, sigma, value=-1, out=out).add_(sigma)


def _second_backward(
    grad_y: Tensor, h: Tensor, w: PackedWeights, out: Tensor, grad_w: PackedWeights, *, bias: bool
) -> Tensor:
    """grad_y W₂ᵀ into `out`; adds hᵀ grad_y and the sum over rows to the gradients of W₂ and its bias."""
    assert w.second is not None and grad_w.second is not None and grad_w.second_bias is not None
    d = w.second.shape[1]
    for half, columns in enumerate((slice(0, d), slice(d, 2 * d))):
        torch.mm(grad_y[:, columns], w.second[half].T, out=out[:, columns])
        grad_w.second[half].addmm_(h[:, columns].T, grad_y[:, columns])
    if bias:
        grad_w.second_bias.add_(grad_y.sum(0).view(2, d))
    return out
