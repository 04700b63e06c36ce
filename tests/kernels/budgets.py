"""What each kernel may need of a GPU: one table."""

from typing import Any, NamedTuple

import torch

from fastchgnet_kernels._launch import DEFAULT_TILE, DOUBLE_TILE, SMALL_TILE
from fastchgnet_kernels.angle_basis import kernel as angle_basis
from fastchgnet_kernels.bond_basis import Basis
from fastchgnet_kernels.bond_basis import kernel as bond_basis
from fastchgnet_kernels.edge_geometry import kernel as edge_geometry
from fastchgnet_kernels.gated_message import kernel as gated_message
from fastchgnet_kernels.gated_update import kernel as gated_update
from fastchgnet_kernels.readout import kernel as readout
from fastchgnet_kernels.segment_sum import kernel as segment_sum

MLP = {"D": 64, "F_PADDED": 16, "NORM": True, "PARTS": 2, "NATIVE": True, "ROWS": DEFAULT_TILE.rows}
EDGES = {**MLP, "K": 3, "F": 0, "LAYERS": 2}
ANGLES = {**MLP, "K": 2, "F": 64, "F_PADDED": 64, "LAYERS": 2}
UPDATES = {**MLP, "K": 2, "F": 64, "F_PADDED": 64, "LAYERS": 1}
TF32 = {"PARTS": 1}
DOUBLE = {"PARTS": 0, "NATIVE": False, "ROWS": DOUBLE_TILE.rows}
OWN = {"SEGMENTS": DEFAULT_TILE.segments}
ANGLE_BASIS = {"K": 15, "K_PADDED": 16, "ROWS": angle_basis.ROWS}
TRANSPOSED = {"EDGES": angle_basis.EDGES, "SLOTS": angle_basis.SLOTS}
GEOMETRY = {"ROWS": edge_geometry.ROWS}
ATOMS = {"ATOMS": edge_geometry.ATOMS, "SLOTS": edge_geometry.SLOTS}
READOUT = {"D": 64, "LAYERS": 3, "NORM": True, "PARTS": 2, "NATIVE": True, "ROWS": SMALL_TILE.rows}
SUM = {"D": 128, "D_PADDED": 128, "SEGMENTS": segment_sum.SEGMENTS}


class Budget(NamedTuple):
    """The most a kernel may need on sm_90, as measured and a little more."""

    kernel: Any
    constants: dict[str, Any]
    stack: int  # bytes spilled
    shared: int  # KiB
    instructions: float | None  # of a warp, a row; None where rows are not what it works through
    warps: int = 4
    data: str = "fp32"


def bonds(tiles: dict[torch.dtype, bond_basis.Tile], dtype: torch.dtype) -> dict[str, Any]:
    """What a basis of bonds is compiled for, CHGNet's 31 frequencies."""
    basis = Basis(torch.empty(1), torch.empty(31, dtype=dtype), 6.0, 8, None)
    shape = bond_basis.shape(basis, tiles[dtype])
    return {name: value for name, value in shape.items() if name.isupper()}


def products(dtype: torch.dtype) -> dict[str, Any]:
    """And its product with the first layer of AtomConv."""
    return bonds(bond_basis.MULTIPLIED, dtype) | bond_basis.product_shape(torch.empty(31, 128, dtype=dtype))


FLOAT, FLOAT64 = (bonds(bond_basis.WRITTEN, dtype) for dtype in (torch.float32, torch.float64))
PRODUCT, PRODUCT64 = products(torch.float32), products(torch.float64)
VALUES, SLOPES = {"SLOPE": False}, {"SLOPE": True}
GRADIENT = {"GRADIENT_COLUMNS": bond_basis.GRADIENT_COLUMNS}
written = bond_basis.bond_basis_written_kernel
message, message_backward = gated_message.message_forward_kernel, gated_message.message_backward_kernel
update, update_backward = gated_update.update_forward_kernel, gated_update.update_backward_kernel

GATED = {
    "edges forward": Budget(message, EDGES | OWN, 0, 80, 190, 8),
    "edges backward": Budget(message_backward, EDGES, 512, 40, 400, 8),
    "angles forward": Budget(message, ANGLES | OWN, 16, 80, 240, 8),
    "angles backward": Budget(message_backward, ANGLES, 1024, 80, 500, 8),
    "updates forward": Budget(update, UPDATES, 0, 40, 140, 8),
    "updates backward": Budget(update_backward, UPDATES, 0, 40, 185, 8),
    "edges forward, tf32": Budget(message, EDGES | OWN | TF32, 32, 40, 160, 8),
    "edges backward, tf32": Budget(message_backward, EDGES | TF32, 560, 40, 360, 8),
    "angles forward, tf32": Budget(message, ANGLES | OWN | TF32, 0, 40, 180, 8),
    "updates forward, tf32": Budget(update, UPDATES | TF32, 0, 40, 125, 8),
    "edges forward, float64": Budget(message, EDGES | OWN | DOUBLE, 128, 40, 3150, 8, "fp64"),
    "edges backward, float64": Budget(message_backward, EDGES | DOUBLE, 0, 40, 3950, 8, "fp64"),
    "angles forward, float64": Budget(message, ANGLES | OWN | DOUBLE, 0, 40, 1150, 8, "fp64"),
    "angles backward, float64": Budget(message_backward, ANGLES | DOUBLE, 0, 40, 2050, 8, "fp64"),
    "updates forward, float64": Budget(update, UPDATES | DOUBLE, 0, 40, 820, 8, "fp64"),
    "updates backward, float64": Budget(update_backward, UPDATES | DOUBLE, 0, 40, 1030, 8, "fp64"),
}
READOUTS = {
    "readout": Budget(readout.readout_forward_kernel, READOUT, 0, 16, 225),
    "readout backward": Budget(readout.readout_backward_kernel, READOUT, 0, 16, 400),
    "readout, float64": Budget(readout.readout_forward_kernel, READOUT | DOUBLE, 0, 40, 860, 8, "fp64"),
    "readout backward, float64": Budget(readout.readout_backward_kernel, READOUT | DOUBLE, 0, 40, 1120, 8, "fp64"),
}
BASES = {
    "bond basis": Budget(bond_basis.bond_basis_forward_kernel, PRODUCT, 0, 64, 70, 8),
    "bond basis backward": Budget(bond_basis.bond_basis_backward_kernel, PRODUCT | GRADIENT, 0, 32, 20, 8),
    "bond basis, float64": Budget(bond_basis.bond_basis_forward_kernel, PRODUCT64, 0, 20, 85, data="fp64"),
    "bond basis backward, float64": Budget(
        bond_basis.bond_basis_backward_kernel, PRODUCT64 | GRADIENT, 0, 24, 65, data="fp64"
    ),
}
OTHERS = {
    "segment sum": Budget(segment_sum.segment_sum_kernel, SUM, 0, 8, None),
    "segment sum, float64": Budget(segment_sum.segment_sum_kernel, SUM, 0, 8, None, data="fp64"),
    "bond basis, written": Budget(written, FLOAT | VALUES, 0, 2, 33),
    "bond basis, slope": Budget(written, FLOAT | SLOPES, 0, 2, 45),
    "bond basis, written, float64": Budget(written, FLOAT64 | VALUES, 0, 2, None, data="fp64"),
    "bond basis, slope, float64": Budget(written, FLOAT64 | SLOPES, 0, 2, None, data="fp64"),
    "angle basis": Budget(angle_basis.angle_basis_kernel, ANGLE_BASIS, 0, 1, 22),
    "angle basis backward": Budget(angle_basis.angle_basis_backward_kernel, ANGLE_BASIS, 0, 1, 18),
    "angle basis to units": Budget(angle_basis.angle_basis_backward_theta_kernel, TRANSPOSED, 0, 1, None),
    "geometry": Budget(edge_geometry.bonds_kernel, GEOMETRY, 0, 0, None),
    "geometry, short bonds": Budget(edge_geometry.short_bonds_kernel, GEOMETRY, 0, 0, None),
    "geometry backward": Budget(edge_geometry.bonds_backward_kernel, GEOMETRY, 0, 0, None),
    "geometry backward, short bonds": Budget(edge_geometry.short_bonds_backward_kernel, GEOMETRY, 0, 0, None),
    "forces of atoms": Budget(edge_geometry.atoms_kernel, ATOMS, 0, 1, None),
    "virials of systems": Budget(edge_geometry.systems_kernel, {"ROWS": edge_geometry.SYSTEM_ROWS}, 0, 1, None),
}
PRODUCTS = GATED | READOUTS | BASES  # which multiply matrices
BUDGETS = PRODUCTS | OTHERS
