"""Lengths and directions of bonds, and what their gradients sum up to."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from fastchgnet_kernels import edge_geometry
from fastchgnet_kernels.edge_geometry import Geometry
from tests.closeness import assert_equal_to_rounding
from tests.kernels.gated import SIZES


@dataclass(frozen=True, kw_only=True)
class Bonds:
    """A graph, as the op takes it."""

    cell: Tensor
    atom_ptr: Tensor
    positions: Tensor
    system_of_atom: Tensor
    edge_ptr: Tensor
    center: Tensor
    neighbor: Tensor
    image: Tensor
    bond_of_edge: Tensor
    edges_of_bond: Tensor
    short_bonds: Tensor


def make_bonds(n_bonds: int, atoms: Sequence[int] = (7, 1, 12, 3), short: float = 0.4) -> Bonds:
    """`n_bonds` random bonds between random atoms of random systems; `short` of them are short.

    Some join an atom with an image of itself. The last atom of the first system and the first of the last have none.
    """
    random = torch.Generator().manual_seed(n_bonds + len(atoms))
    starts = list(itertools.accumulate(atoms, initial=0))
    bare = {starts[1] - 1, starts[-2]} if len(atoms) > 1 else set()
    edges = []
    for bond in range(n_bonds):
        system = int(torch.randint(len(atoms), (), generator=random))
        some = [atom for atom in range(*starts[system : system + 2]) if atom not in bare]
        i, j = (some[int(k)] for k in torch.randint(len(some), (2,), generator=random))
        image = torch.randint(-2, 3, (3,), generator=random)
        image[0] += 5 * (i == j)  # never the atom itself
        edges += [(i, j, *image.tolist(), bond), (j, i, *(-image).tolist(), bond)]
    table = torch.tensor(sorted(edges), dtype=torch.int32).view(-1, 6)
    system = torch.repeat_interleave(torch.arange(len(atoms), dtype=torch.int32), torch.tensor(atoms))
    cell = torch.randn(len(atoms), 3, 3, generator=random, dtype=torch.float64) + 8 * torch.eye(3, dtype=torch.float64)
    return Bonds(
        cell=cell,
        atom_ptr=torch.tensor(starts, dtype=torch.int32),
        positions=4 * torch.randn(starts[-1], 3, generator=random, dtype=torch.float64),
        system_of_atom=system,
        edge_ptr=torch.searchsorted(table[:, 0].contiguous(), torch.arange(starts[-1] + 1)).to(torch.int32),
        center=table[:, 0].contiguous(),
        neighbor=table[:, 1].contiguous(),
        image=table[:, 2:5].contiguous(),
        bond_of_edge=table[:, 5].contiguous(),
        edges_of_bond=torch.argsort(table[:, 5], stable=True).view(-1, 2).to(torch.int32),
        short_bonds=torch.arange(n_bonds, dtype=torch.int32)[torch.rand(n_bonds, generator=random) < short],
    )


def looped(bonds: Bonds, positions: Tensor, cell: Tensor) -> Geometry:
    """Bond by bond; differentiable by autograd."""
    vectors = [positions.new_zeros(0, 3)]
    for edge, _ in bonds.edges_of_bond.tolist():
        i, j = int(bonds.center[edge]), int(bonds.neighbor[edge])
        shift = sum(n * a for n, a in zip(bonds.image[edge].tolist(), cell[int(bonds.system_of_atom[i])], strict=True))
        vectors.append((positions[i] - positions[j] - shift)[None])
    vector = torch.cat(vectors)
    length = (vector**2).sum(1).sqrt()
    units = [vector.new_zeros(0, 3)]
    for bond in bonds.short_bonds.tolist():
        units += [vector[bond : bond + 1] / length[bond], -vector[bond : bond + 1] / length[bond]]
    return Geometry(vector, length, length[bonds.short_bonds.long()], torch.cat(units))


def random_gradients(bonds: Bonds) -> tuple[Tensor, Tensor]:
    """∂E/∂length and ∂E/∂unit."""
    random = torch.Generator().manual_seed(3)
    n_bonds, n_short = len(bonds.edges_of_bond), len(bonds.short_bonds)
    return (
        torch.randn(n_bonds, generator=random, dtype=torch.float64),
        torch.randn(2 * n_short, 3, generator=random, dtype=torch.float64),
    )


def looped_gradients(bonds: Bonds) -> tuple[Tensor, Tensor]:
    """Forces and virials that autograd makes of the loops, from positions and from a strain."""
    positions = bonds.positions.clone().requires_grad_()
    strain = torch.zeros_like(bonds.cell, requires_grad=True)
    stretch = torch.eye(3, dtype=torch.float64) + strain
    placed = torch.stack([x @ stretch[s] for x, s in zip(positions, bonds.system_of_atom, strict=True)])
    found = looped(bonds, placed, bonds.cell @ stretch)
    energy = sum((x * g).sum() for x, g in zip((found.length, found.short_unit), random_gradients(bonds), strict=True))
    energy = energy + 0 * (placed.sum() + strain.sum())
    grad_positions, virial = torch.autograd.grad(energy, [positions, strain])
    return -grad_positions, virial


CASES = [*((n, (7, 1, 12, 3)) for n in SIZES), (63, (9,))]


@pytest.mark.parametrize(("n_bonds", "atoms"), CASES, ids=str)
def test_forward_is_the_formula_bond_by_bond(n_bonds: int, atoms: tuple[int, ...]) -> None:
    bonds = make_bonds(n_bonds, atoms)
    expected = looped(bonds, bonds.positions, bonds.cell)
    for name, ours, theirs in zip(Geometry._fields, edge_geometry.forward(bonds), expected, strict=True):
        assert_equal_to_rounding(ours, theirs, roundings=16, what=name)


@pytest.mark.parametrize(("n_bonds", "atoms"), CASES, ids=str)
def test_forces_and_virials_are_what_autograd_makes_of_the_formula(n_bonds: int, atoms: tuple[int, ...]) -> None:
    bonds = make_bonds(n_bonds, atoms)
    found = edge_geometry.backward(bonds, edge_geometry.forward(bonds), *random_gradients(bonds))
    for name, ours, theirs in zip(("forces", "virial"), found, looped_gradients(bonds), strict=True):
        assert_equal_to_rounding(ours, theirs, what=name)


def test_there_may_be_no_short_bond() -> None:
    bonds = replace(make_bonds(20), short_bonds=torch.zeros(0, dtype=torch.int32))
    geometry = edge_geometry.forward(bonds)
    assert geometry.short_length.shape == (0,)
    assert geometry.short_unit.shape == (0, 3)
    found = edge_geometry.backward(bonds, geometry, *random_gradients(bonds))
    for ours, theirs in zip(found, looped_gradients(bonds), strict=True):
        assert_equal_to_rounding(ours, theirs)
