"""Positions → bond lengths and unit vectors, and back: their gradients → forces and virials. In float64.

Forward: r_b = positions[centre] - positions[neighbour] - image @ cell of the edge that represents bond b, its length,
and of short bonds the unit vectors u = ± r/|r| of both edges.
Backward: with g_b = ∂E/∂r_b = r/|r| grad_length (+ (1 - u uᵀ)/|r| (grad_u+ - grad_u-) where the bond is short),
F_i = Σ over edges e that leave i of ∓ g_bond(e), minus where e represents its bond, and ∂E/∂strain = Σ_b r_b ⊗ g_b.
"""

from fastchgnet_kernels.edge_geometry.function import backward, forward
from fastchgnet_kernels.edge_geometry.graph import Geometry, Graph

__all__ = ["Geometry", "Graph", "backward", "forward"]
