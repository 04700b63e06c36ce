"""Picks who measures bonds, and who sums up their gradients. No maths in this file.

Learning of direct forces differentiates them by those gradients, which the kernels cannot do.
"""

import torch
from torch import Tensor

from fastchgnet_kernels._launch import runs_kernels
from fastchgnet_kernels.edge_geometry import reference
from fastchgnet_kernels.edge_geometry.graph import Geometry, Graph


def forward(graph: Graph) -> Geometry:
    """Vectors and lengths of all bonds, lengths and unit vectors of short ones."""
    if not runs_kernels(graph.positions.device):
        return reference.forward(graph)
    from fastchgnet_kernels.edge_geometry import kernel

    return kernel.forward(graph)


def backward(graph: Graph, geometry: Geometry, grad_length: Tensor, grad_short_unit: Tensor) -> tuple[Tensor, Tensor]:
    """Forces (atoms, 3) eV/Å and virials (systems, 3, 3) eV from ∂E/∂length (bonds,) and ∂E/∂unit (2 short, 3)."""
    differentiated = torch.is_grad_enabled() and (grad_length.requires_grad or grad_short_unit.requires_grad)
    if differentiated or not runs_kernels(graph.positions.device):
        return reference.backward(graph, geometry, grad_length, grad_short_unit)
    from fastchgnet_kernels.edge_geometry import kernel

    return kernel.backward(graph, geometry, grad_length, grad_short_unit)
