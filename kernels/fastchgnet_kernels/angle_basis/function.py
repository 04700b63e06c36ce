"""Picks who computes the basis of angles. No maths in this file.

Learning of direct forces differentiates them by the gradients of angles, which the kernel cannot do.
"""

import torch
from torch import Tensor

from fastchgnet_kernels._launch import runs_kernels
from fastchgnet_kernels.angle_basis import reference


def forward(unit: Tensor, edges_of_angle: Tensor, frequencies: Tensor) -> Tensor:
    """[1/√2, sin(f_k θ), cos(f_k θ)] / √π with θ = acos((1 - 1e-6) u_first · u_second).

    unit (edges, 3) float64 unit vectors, edges_of_angle (angles, 2), frequencies (k,) → (angles, 2k + 1) in the
    dtype of the frequencies.
    """
    if not runs_kernels(unit.device):
        return reference.forward(unit, edges_of_angle, frequencies)
    from fastchgnet_kernels.angle_basis import kernel

    return kernel.forward(unit, edges_of_angle, frequencies)


def backward(grad_basis: Tensor, basis: Tensor, frequencies: Tensor, transpose: Tensor) -> Tensor:
    """grad_θ of each angle together with its mirror, the angle at `transpose`, (angles,) float64."""
    if not runs_kernels(basis.device):
        return reference.backward(grad_basis, basis, frequencies, transpose)
    from fastchgnet_kernels.angle_basis import kernel

    return kernel.backward(grad_basis, basis, frequencies, transpose)


def backward_theta(grad_theta: Tensor, unit: Tensor, edges_of_angle: Tensor, received_ptr: Tensor) -> Tensor:
    """Gradient with respect to the unit vectors, (edges, 3) float64, from that with respect to the angles (`backward`).

    The first of `edges_of_angle` must ascend: angles `received_ptr[e]:received_ptr[e+1]` have the first edge e.
    """
    differentiated = torch.is_grad_enabled() and grad_theta.requires_grad
    if differentiated or not runs_kernels(unit.device):
        return reference.backward_theta(grad_theta, unit, edges_of_angle)
    from fastchgnet_kernels.angle_basis import kernel

    return kernel.backward_theta(grad_theta, unit, edges_of_angle, received_ptr)
