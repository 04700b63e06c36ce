"""Fourier basis of the angle between two edges that leave one atom (CHGNet, `AngleEncoder` and `Fourier`).

Forward: [1/√2, sin(f_k θ), cos(f_k θ)] / √π, θ = acos((1 - 1e-6) u·u').
Backward: grad_θ = Σ_k f_k (grad_sin,k cos - grad_cos,k sin)/√π, then grad_u = Σ_angles -(1 - 1e-6)/sin θ · grad_θ u'.
"""

from fastchgnet_kernels.angle_basis.function import backward, backward_theta, forward

__all__ = ["backward", "backward_theta", "forward"]
