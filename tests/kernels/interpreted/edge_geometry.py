"""The geometry of bonds by its kernels, run by Triton's interpreter, against loops over bonds."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fastchgnet_kernels import edge_geometry
from fastchgnet_kernels._launch import INTERPRETED
from tests.closeness import assert_equal_to_rounding
from tests.conftest import PoisonedMemory
from tests.kernels.test_edge_geometry import CASES, Bonds, looped, looped_gradients, make_bonds, random_gradients


def run(bonds: Bonds) -> list[Tensor]:
    geometry = edge_geometry.forward(bonds)
    return [*geometry, *edge_geometry.backward(bonds, geometry, *random_gradients(bonds))]


@pytest.mark.parametrize(("n_bonds", "atoms"), CASES, ids=str)
def test_all_is_the_formula_and_its_derivative(
    n_bonds: int, atoms: tuple[int, ...], poisoned_memory: PoisonedMemory
) -> None:
    assert INTERPRETED
    bonds = make_bonds(n_bonds, atoms)
    found = poisoned_memory.run(lambda: run(bonds))
    for ours, exact in zip(found, [*looped(bonds, bonds.positions, bonds.cell), *looped_gradients(bonds)], strict=True):
        assert_equal_to_rounding(ours, exact)


@pytest.mark.parametrize(("n_bonds", "atoms"), [(40, (260,)), (100, (2,))], ids=str)
def test_systems_and_atoms_may_be_larger_than_a_tile(n_bonds: int, atoms: tuple[int, ...]) -> None:
    bonds = make_bonds(n_bonds, atoms)
    for ours, exact in zip(run(bonds)[-2:], looped_gradients(bonds), strict=True):
        assert_equal_to_rounding(ours, exact)


def test_there_may_be_no_short_bond() -> None:
    bonds = replace(make_bonds(20), short_bonds=torch.zeros(0, dtype=torch.int32))
    *_, short_unit, forces, virial = run(bonds)
    assert short_unit.shape == (0, 3)
    for ours, exact in zip((forces, virial), looped_gradients(bonds), strict=True):
        assert_equal_to_rounding(ours, exact)


def test_forces_can_be_differentiated_by_gradients_of_lengths() -> None:
    bonds = make_bonds(20)
    grad_length, grad_unit = random_gradients(bonds)
    grad_length.requires_grad_()
    forces, _ = edge_geometry.backward(bonds, edge_geometry.forward(bonds), grad_length, grad_unit)
    forces.square().sum().backward()
    assert grad_length.grad is not None
    assert grad_length.grad.abs().max() > 0
