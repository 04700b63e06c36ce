"""AtomConv: messages along edges onto their centres. Forward, and its adjoint directly below."""

from typing import NamedTuple

import torch
from torch import Tensor

from ase_fastchgnet.model.engine.index import GraphIndex
from ase_fastchgnet.model.engine.weights import AtomConvWeights
from fastchgnet_kernels import bond_basis, gated_message
from fastchgnet_kernels.bond_basis import Basis
from fastchgnet_kernels.gated_message import Kept, Rows, Scratch, Weighting


class BondInputs(NamedTuple):
    """What all four AtomConvs read of the bonds."""

    basis: Basis
    weight: Tensor  # (bonds, 64) multiplies the message


class BondGradients(NamedTuple):
    """What all four adjoints add to."""

    basis: Tensor  # as `bond_basis.new_grad` makes it
    weight: Tensor  # (bonds, 64)


class AtomConvSaved(NamedTuple):
    atoms: Tensor  # (atoms, 64) input
    short: Tensor  # (short, 64) input
    table: Tensor | None
    kept: Kept | None


def forward(
    atoms: Tensor, short: Tensor, bonds: BondInputs, index: GraphIndex, w: AtomConvWeights, *, keep: Scratch | None
) -> tuple[Tensor, AtomConvSaved]:
    """atoms + out(Σ_edges message), (atoms, 64)."""
    table = _table(atoms, short, bonds, index, w)
    message, kept = gated_message.forward(
        Rows(table, index.edge_rows, None, w.tf32),
        w.gated,
        Weighting(bonds.weight, index.edge_bond),
        index.edge_segments,
        keep=keep,
    )
    updated = torch.addmm(atoms, message, w.out)
    if w.out_bias is not None:
        updated.add_(w.out_bias)
    return updated, AtomConvSaved(atoms, short, None if keep is None else table, kept)


def backward(
    grad_updated: Tensor,
    saved: AtomConvSaved,
    bonds: BondInputs,
    index: GraphIndex,
    w: AtomConvWeights,
    *,
    grad_bonds: BondGradients,
    grad_short: Tensor,
    atoms_needed: bool,
) -> Tensor:
    """The gradient of the atoms, or `grad_updated` where nobody asks; adds to those of the bonds and short bonds."""
    n_atoms = saved.atoms.shape[0]
    table = _table(saved.atoms, saved.short, bonds, index, w) if saved.table is None else saved.table
    grad_table, grad_weight = gated_message.backward(
        grad_updated @ w.out.T,
        Rows(table, index.edge_rows, None, w.tf32),
        w.gated,
        Weighting(bonds.weight, index.edge_bond),
        index.edge_segments,
        grad_x=None,
        kept=saved.kept,
    )
    grad_bonds.weight.add_(grad_weight)
    grad_bond = grad_table[2 * n_atoms :]
    grad_short.addmm_(grad_bond.index_select(0, index.short_bonds), w.bond.T)
    grad_bond.index_fill_(0, index.short_bonds, 0)  # a short bond speaks by its features, not by its length
    bond_basis.backward(grad_bond, bonds.basis, w.far_bond, grad=grad_bonds.basis)
    if not atoms_needed:
        return grad_updated
    grad_atoms = torch.addmm(grad_updated, grad_table[:n_atoms], w.center.T)
    grad_atoms.addmm_(grad_table[n_atoms : 2 * n_atoms], w.neighbor.T)
    return grad_atoms


def _table(atoms: Tensor, short: Tensor, bonds: BondInputs, index: GraphIndex, w: AtomConvWeights) -> Tensor:
    """First layer per operand: [centre atoms | neighbour atoms | bonds], (2 atoms + bonds, 128)."""
    n_atoms, n_bonds = atoms.shape[0], bonds.weight.shape[0]
    table = atoms.new_empty(2 * n_atoms + n_bonds, w.bias.shape[0])
    torch.addmm(w.bias, atoms, w.center, out=table[:n_atoms])
    torch.mm(atoms, w.neighbor, out=table[n_atoms : 2 * n_atoms])
    bond_rows = table[2 * n_atoms :]
    bond_basis.forward(bonds.basis, w.far_bond, out=bond_rows)
    if w.far_shift is not None:
        bond_rows.add_(index.has_angles[:, None] * w.far_shift)
    bond_rows.index_copy_(0, index.short_bonds, short @ w.bond)
    return table
