"""Positions → bond lengths and unit vectors, and back: their gradients → forces and virials (`edge_geometry`)."""

from fastchgnet_kernels.edge_geometry import Geometry
from fastchgnet_kernels.edge_geometry import backward as gradients
from fastchgnet_kernels.edge_geometry import forward as measure

__all__ = ["Geometry", "gradients", "measure"]
