"""Geometry of bonds and its adjoint, in plain torch: the definition of the op."""

import torch
from torch import Tensor

from fastchgnet_kernels.edge_geometry.graph import Geometry, Graph


def forward(graph: Graph) -> Geometry:
    """Bond vectors r = positions[centre] - positions[neighbour] - image @ cell and what follows from them."""
    edge = graph.edges_of_bond[:, 0]
    center, neighbor = graph.center.index_select(0, edge), graph.neighbor.index_select(0, edge)
    image = graph.image.index_select(0, edge).to(graph.positions.dtype)
    vector = graph.positions.index_select(0, center).sub_(graph.positions.index_select(0, neighbor))
    if len(graph.cell) == 1:
        vector.sub_(image @ graph.cell[0])
    else:
        cell = graph.cell.index_select(0, graph.system_of_atom.index_select(0, center))
        vector.sub_(torch.einsum("bi,bij->bj", image, cell))
    length = torch.linalg.vector_norm(vector, dim=1)
    short_length = length.index_select(0, graph.short_bonds)
    unit = vector.index_select(0, graph.short_bonds).div_(short_length[:, None])
    return Geometry(vector, length, short_length, torch.stack([unit, -unit], 1).view(-1, 3))


def backward(graph: Graph, geometry: Geometry, grad_length: Tensor, grad_short_unit: Tensor) -> tuple[Tensor, Tensor]:
    """Forces (atoms, 3) eV/Å and virials (systems, 3, 3) eV from ∂E/∂length (bonds,) and ∂E/∂unit (2 short, 3).

    With g_b = ∂E/∂r_b: F[centre] -= g_b, F[neighbour] += g_b, and ∂E/∂strain = Σ_b r_b ⊗ g_b.
    """
    grad_vector = geometry.vector * (grad_length / geometry.length)[:, None]
    # Also where there is no short bond: then all weights still take part in what is differentiated by them.
    unit = geometry.short_unit[::2]
    grad_unit = grad_short_unit[::2] - grad_short_unit[1::2]
    along = (grad_unit * unit).sum(1, keepdim=True)
    grad_vector.index_add_(0, graph.short_bonds, (grad_unit - along * unit) / geometry.short_length[:, None])
    edge = graph.edges_of_bond[:, 0]
    center, neighbor = graph.center.index_select(0, edge), graph.neighbor.index_select(0, edge)
    forces = torch.zeros_like(graph.positions)
    forces.index_add_(0, center, grad_vector, alpha=-1).index_add_(0, neighbor, grad_vector)
    if len(graph.cell) == 1:
        return forces, (geometry.vector.T @ grad_vector)[None]
    outer = geometry.vector[:, :, None] * grad_vector[:, None, :]
    system = graph.system_of_atom.index_select(0, center)
    return forces, torch.zeros_like(graph.cell).index_add_(0, system, outer)
