"""Geometry of bonds and its adjoint in Triton, without atomics: every atom sums over the edges that leave it, every
system over its atoms, in their order. The maths: `__init__`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastchgnet_kernels._launch import options
from fastchgnet_kernels.edge_geometry.graph import Geometry, Graph

ROWS = 128  # bonds per program
ATOMS = 8  # per program
SLOTS = 16  # edges of each atom at a time
SYSTEM_ROWS = 256  # atoms of a system at a time
WARPS = 4


@triton.jit
def load_vector(x, row, live):
    """The three numbers of x[row]; 0 where not live."""
    at = x + row.to(tl.int64) * 3
    return tl.load(at, live, 0), tl.load(at + 1, live, 0), tl.load(at + 2, live, 0)


@triton.jit
def store_vector(out, row, x, y, z, live):
    """out[row] = x, y, z."""
    at = out + row.to(tl.int64) * 3
    tl.store(at, x, live)
    tl.store(at + 1, y, live)
    tl.store(at + 2, z, live)


@triton.jit(do_not_specialize=["n_bonds"])
def bonds_kernel(
    positions, cell, system_of_atom, center, neighbor, image, edges_of_bond,  # of the graph
    vector,  # (bonds, 3)
    length,  # (bonds,)
    n_bonds,
    ROWS: tl.constexpr,
):  # fmt: skip
    """This program measures ROWS bonds."""
    bond = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = bond < n_bonds
    edge = tl.load(edges_of_bond + bond.to(tl.int64) * 2, live, 0)
    atom = tl.load(center + edge, live, 0)
    lattice = cell + tl.load(system_of_atom + atom, live, 0).to(tl.int64) * 9
    x, y, z = load_vector(positions, atom, live)
    x_other, y_other, z_other = load_vector(positions, tl.load(neighbor + edge, live, 0), live)
    a, b, c = load_vector(image, edge, live)
    a_x, a_y, a_z = load_vector(lattice, tl.zeros_like(bond), live)
    b_x, b_y, b_z = load_vector(lattice + 3, tl.zeros_like(bond), live)
    c_x, c_y, c_z = load_vector(lattice + 6, tl.zeros_like(bond), live)
    x = x - x_other - (a * a_x + b * b_x + c * c_x)
    y = y - y_other - (a * a_y + b * b_y + c * c_y)
    z = z - z_other - (a * a_z + b * b_z + c * c_z)
    store_vector(vector, bond, x, y, z, live)
    tl.store(length + bond, tl.sqrt(x * x + y * y + z * z), live)


@triton.jit(do_not_specialize=["n_short"])
def short_bonds_kernel(
    vector, length,
    short_bonds,  # (short,)
    short_length,  # (short,)
    short_unit,  # (2 short, 3)
    n_short,
    ROWS: tl.constexpr,
):  # fmt: skip
    """This program writes lengths and unit vectors of ROWS short bonds."""
    short = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = short < n_short
    bond = tl.load(short_bonds + short, live, 0)
    r = tl.load(length + bond, live, 1.0)
    x, y, z = load_vector(vector, bond, live)
    x, y, z = x / r, y / r, z / r
    tl.store(short_length + short, r, live)
    store_vector(short_unit, 2 * short, x, y, z, live)
    store_vector(short_unit, 2 * short + 1, -x, -y, -z, live)


@triton.jit(do_not_specialize=["n_bonds"])
def bonds_backward_kernel(
    vector, length,
    grad_length,  # (bonds,)
    grad_vector,  # (bonds, 3)
    n_bonds,
    ROWS: tl.constexpr,
):  # fmt: skip
    """This program computes ∂E/∂r of ROWS bonds, as far as E depends on their lengths."""
    bond = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = bond < n_bonds
    scale = tl.load(grad_length + bond, live, 0.0) / tl.load(length + bond, live, 1.0)
    x, y, z = load_vector(vector, bond, live)
    store_vector(grad_vector, bond, x * scale, y * scale, z * scale, live)


@triton.jit(do_not_specialize=["n_short"])
def short_bonds_backward_kernel(
    short_length, short_unit, short_bonds,
    grad_unit,  # (2 short, 3)
    grad_vector,  # (bonds, 3), added to
    n_short,
    ROWS: tl.constexpr,
):  # fmt: skip
    """This program adds what ROWS short bonds have from their unit vectors; no two write to one place."""
    short = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = short < n_short
    bond = tl.load(short_bonds + short, live, 0)
    inverse = 1.0 / tl.load(short_length + short, live, 1.0)
    u_x, u_y, u_z = load_vector(short_unit, 2 * short, live)
    x, y, z = load_vector(grad_unit, 2 * short, live)
    x_other, y_other, z_other = load_vector(grad_unit, 2 * short + 1, live)
    x, y, z = x - x_other, y - y_other, z - z_other
    along = x * u_x + y * u_y + z * u_z
    g_x, g_y, g_z = load_vector(grad_vector, bond, live)
    g_x += (x - along * u_x) * inverse
    g_y += (y - along * u_y) * inverse
    g_z += (z - along * u_z) * inverse
    store_vector(grad_vector, bond, g_x, g_y, g_z, live)


@triton.jit(do_not_specialize=["n_atoms"])
def atoms_kernel(
    vector, grad_vector, edge_ptr, bond_of_edge, edges_of_bond,
    forces,  # (atoms, 3)
    virial,  # (atoms, 9) of the bonds that are represented by an edge of the atom
    n_atoms,
    ATOMS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """This program sums over the edges that leave ATOMS atoms."""
    atom = tl.program_id(0) * ATOMS + tl.arange(0, ATOMS)
    live = atom < n_atoms
    start, stop = tl.load(edge_ptr + atom, live, 0), tl.load(edge_ptr + atom + 1, live, 0)
    f_x = tl.zeros((ATOMS, SLOTS), tl.float64)
    f_y, f_z, w_xx, w_xy, w_xz = f_x, f_x, f_x, f_x, f_x
    w_yx, w_yy, w_yz, w_zx, w_zy, w_zz = f_x, f_x, f_x, f_x, f_x, f_x
    for begin in range(0, tl.max(stop - start, 0), SLOTS):
        edge = (start + begin)[:, None] + tl.arange(0, SLOTS)[None, :]
        inside = edge < stop[:, None]
        bond = tl.load(bond_of_edge + edge, inside, 0)
        represents = tl.load(edges_of_bond + bond.to(tl.int64) * 2, inside, 0) == edge
        g_x, g_y, g_z = load_vector(grad_vector, bond, inside)
        x, y, z = load_vector(vector, bond, inside & represents)
        f_x += tl.where(represents, -g_x, g_x)
        f_y += tl.where(represents, -g_y, g_y)
        f_z += tl.where(represents, -g_z, g_z)
        w_xx, w_xy, w_xz = w_xx + x * g_x, w_xy + x * g_y, w_xz + x * g_z
        w_yx, w_yy, w_yz = w_yx + y * g_x, w_yy + y * g_y, w_yz + y * g_z
        w_zx, w_zy, w_zz = w_zx + z * g_x, w_zy + z * g_y, w_zz + z * g_z
    store_vector(forces, atom, tl.sum(f_x, 1), tl.sum(f_y, 1), tl.sum(f_z, 1), live)
    store_vector(virial, 3 * atom, tl.sum(w_xx, 1), tl.sum(w_xy, 1), tl.sum(w_xz, 1), live)
    store_vector(virial, 3 * atom + 1, tl.sum(w_yx, 1), tl.sum(w_yy, 1), tl.sum(w_yz, 1), live)
    store_vector(virial, 3 * atom + 2, tl.sum(w_zx, 1), tl.sum(w_zy, 1), tl.sum(w_zz, 1), live)


@triton.jit
def systems_kernel(
    virial_of_atom,  # (atoms, 9)
    atom_ptr,  # (systems + 1,)
    virial,  # (systems, 9)
    ROWS: tl.constexpr,
):  # fmt: skip
    """This program sums over the atoms of a system."""
    system = tl.program_id(0)
    start, stop = tl.load(atom_ptr + system), tl.load(atom_ptr + system + 1)
    column = tl.arange(0, 16)
    total = tl.zeros((ROWS, 16), tl.float64)
    for begin in range(start, stop, ROWS):
        atom = begin + tl.arange(0, ROWS)
        inside = (atom < stop)[:, None] & (column < 9)[None, :]
        total += tl.load(virial_of_atom + atom.to(tl.int64)[:, None] * 9 + column[None, :], inside, 0.0)
    tl.store(virial + system * 9 + column, tl.sum(total, 0), column < 9)


def forward(graph: Graph) -> Geometry:
    """Vectors and lengths of all bonds, lengths and unit vectors of short ones."""
    positions, n_bonds, n_short = graph.positions, graph.edges_of_bond.shape[0], graph.short_bonds.shape[0]
    vector, length = positions.new_empty(n_bonds, 3), positions.new_empty(n_bonds)
    short_length, short_unit = positions.new_empty(n_short), positions.new_empty(2 * n_short, 3)
    if n_bonds:
        bonds_kernel[(triton.cdiv(n_bonds, ROWS),)](
            positions, graph.cell, graph.system_of_atom, graph.center, graph.neighbor, graph.image,
            graph.edges_of_bond, vector, length, n_bonds, ROWS=ROWS, **options(WARPS),
        )  # fmt: skip
    if n_short:
        short_bonds_kernel[(triton.cdiv(n_short, ROWS),)](
            vector, length, graph.short_bonds, short_length, short_unit, n_short, ROWS=ROWS, **options(WARPS)
        )
    return Geometry(vector, length, short_length, short_unit)


def backward(graph: Graph, geometry: Geometry, grad_length: Tensor, grad_short_unit: Tensor) -> tuple[Tensor, Tensor]:
    """Forces (atoms, 3) eV/Å and virials (systems, 3, 3) eV from ∂E/∂length (bonds,) and ∂E/∂unit (2 short, 3)."""
    n_atoms, n_bonds, n_short = graph.positions.shape[0], graph.edges_of_bond.shape[0], graph.short_bonds.shape[0]
    forces, virial = torch.empty_like(graph.positions), torch.empty_like(graph.cell)
    grad_vector, virial_of_atom = torch.empty_like(geometry.vector), forces.new_empty(n_atoms, 9)
    if n_bonds:
        bonds_backward_kernel[(triton.cdiv(n_bonds, ROWS),)](
            geometry.vector, geometry.length, grad_length, grad_vector, n_bonds, ROWS=ROWS, **options(WARPS)
        )
    if n_short:
        short_bonds_backward_kernel[(triton.cdiv(n_short, ROWS),)](
            geometry.short_length, geometry.short_unit, graph.short_bonds, grad_short_unit, grad_vector, n_short,
            ROWS=ROWS, **options(WARPS),
        )  # fmt: skip
    if n_atoms:
        atoms_kernel[(triton.cdiv(n_atoms, ATOMS),)](
            geometry.vector, grad_vector, graph.edge_ptr, graph.bond_of_edge, graph.edges_of_bond,
            forces, virial_of_atom, n_atoms, ATOMS=ATOMS, SLOTS=SLOTS, **options(WARPS),
        )  # fmt: skip
    if len(virial):
        systems_kernel[(len(virial),)](virial_of_atom, graph.atom_ptr, virial, ROWS=SYSTEM_ROWS, **options(WARPS))
    return forces, virial
