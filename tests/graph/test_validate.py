"""Bad input is refused in words that say what, where, got and remedy."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from structures import STRUCTURES

from ase_fastchgnet.graph import Cutoffs, NeighborCache, build_batch
from ase_fastchgnet.graph.validate import check_search_cost

CUTOFFS = Cutoffs()
GOOD = STRUCTURES["NaCl"]


def refused(atoms: Atoms, message: str, error: type[Exception] = ValueError) -> None:
    """The second of three structures is at fault, and the message names it."""
    with pytest.raises(error, match=f"system 1: {message}"):
        build_batch([GOOD, atoms, GOOD], CUTOFFS)


def changed(atoms: Atoms, change: Callable[[Atoms], object]) -> Atoms:
    atoms = atoms.copy()
    change(atoms)
    return atoms


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e9])
def test_a_position_that_is_no_place(value: float) -> None:
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.positions[5, 1] = value
    refused(atoms, rf"atom 5 \(O\) has y = {value} Å; coordinates must be finite")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_a_cell_that_is_no_cell(value: float) -> None:
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.cell[1, 2] = value
    refused(atoms, r"cell vector 1 is \[.*\] Å; its components must be finite")


@pytest.mark.parametrize(("z", "symbol"), [(0, "X"), (95, "Am"), (118, "Og"), (200, "no element"), (-1, "no element")])
def test_an_element_that_chgnet_does_not_know(z: int, symbol: str) -> None:
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.numbers[2] = z
    refused(atoms, rf"atom 2 has atomic number {z} \({symbol}\); CHGNet knows the elements 1 \(H\) to 94 \(Pu\)")


def test_the_lightest_and_the_heaviest_element_pass() -> None:
    build_batch([Atoms("HPu", positions=[[0, 0, 0], [0, 0, 2]])], CUTOFFS)


def test_no_atoms() -> None:
    refused(Atoms(cell=[3, 3, 3], pbc=True), "there are no atoms")


def test_no_atoms_object() -> None:
    refused("NaCl", "expected an ase.Atoms, got str", TypeError)  # type: ignore[arg-type]


@pytest.mark.parametrize("pbc", [True, (False, False, True)])
def test_a_periodic_axis_without_a_vector(pbc: object) -> None:
    atoms = molecule("H2O")
    atoms.pbc = pbc
    refused(atoms, r"pbc is True along axis [02], but cell vector [02] is zero; set the cell, or pbc=False")


@pytest.mark.parametrize("name", ["two vectors parallel", "three in a plane", "a slab of one direction"])
def test_periodic_vectors_that_depend_on_each_other(name: str) -> None:
    cell, pbc = {
        "two vectors parallel": ([[3, 0, 0], [6, 0, 0], [0, 0, 3]], True),
        "three in a plane": ([[3, 0, 0], [0, 3, 0], [3, 3, 1e-5]], True),
        "a slab of one direction": ([[3, 1, 0], [-6, -2, 0], [0, 0, 3]], (True, True, False)),
    }[name]
    refused(Atoms("H", cell=cell, pbc=pbc), "the periodic cell vectors .* are linearly dependent")


def test_two_atoms_on_one_spot() -> None:
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.positions[6] = atoms.positions[1] + [0, 0, 0.004]
    refused(atoms, r"atoms 1 \(Li\) and 6 \(O\) are 0\.0040 Å apart, closer than 0\.01 Å")


def test_two_atoms_on_one_spot_through_a_periodic_image() -> None:
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.positions[6] = atoms.positions[1] - 2 * atoms.cell[1]
    refused(atoms, re.escape("atoms 1 (Li) and 6 (O) are 0.0000 Å apart through the periodic image [0, 2, 0]"))


def test_two_atoms_that_meet_on_the_way_are_refused_without_a_new_search() -> None:
    atoms, cache = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.3]]), NeighborCache(CUTOFFS, skin=1.0)
    cache.graph(atoms)
    atoms.positions[1, 2] = 0.005
    with pytest.raises(ValueError, match=r"system 7: atoms 0 \(H\) and 1 \(H\) are 0\.0050 Å apart"):
        cache.graph(atoms, system=7)
    assert cache.builds == 1


@pytest.mark.parametrize(
    ("cell", "symbols"),
    [
        ([0.2, 0.2, 0.2], "H"),  # 0.2 nm taken for Å: 100,000 neighbours
        ([1e-3, 1e-3, 1e-3], "H"),
        ([0.05, 0.05, 1e4], "H"),  # a dense layer
        ([1e-4, 1e3, 1e3], "H"),  # a dense line
        ([[30, 0, 0], [9e4, 30, 0], [9e4, 0, 30]], "H2000"),  # skewed: 1e9 images
    ],
    ids=str,
)
def test_a_cell_with_too_many_neighbours_or_images_is_refused_before_the_search(cell: list, symbols: str) -> None:
    atoms = Atoms(symbols, cell=cell, pbc=True)
    refused(atoms, r".*(neighbours per atom|linearly dependent)")


def test_an_extremely_compressed_crystal_passes() -> None:
    """Nothing physical comes near the limits: diamond at half its lattice constant, 1,290 neighbours."""
    assert build_batch([bulk("C", "diamond", a=3.57 / 2)], CUTOFFS).n_edges == 2 * 1290


@pytest.mark.parametrize(
    ("n_atoms", "cell"), [(3_000_000, [310, 310, 310]), (20_000, [6, 6, 5500]), (900, [300, 300, 3])]
)
def test_large_long_and_flat_crystals_are_not_taken_for_dense_ones(n_atoms: int, cell: list[float]) -> None:
    """0.1 atoms per cubic ångström have 90 neighbours, whatever the shape; only the estimate is run here."""
    check_search_cost(np.diag(cell).astype(float), n_atoms, 6.0, system=0)


def test_a_masked_array_is_refused() -> None:
    def mask(atoms: Atoms) -> None:
        atoms.arrays["positions"] = np.ma.masked_array(atoms.positions, mask=False)

    refused(changed(GOOD, mask), "positions are a masked array")


@pytest.mark.parametrize("dtype", [object, complex, str])
def test_positions_that_are_no_real_numbers_are_refused(dtype: type) -> None:
    def convert(atoms: Atoms) -> None:
        atoms.arrays["positions"] = atoms.positions.astype(dtype)

    refused(changed(GOOD, convert), "positions must be an array of real numbers")


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_positions_of_another_real_type_pass(dtype: type) -> None:
    def convert(atoms: Atoms) -> None:
        atoms.arrays["positions"] = np.round(atoms.positions).astype(dtype)

    assert build_batch([changed(GOOD, convert)], CUTOFFS).n_edges > 0


def test_atomic_numbers_that_are_no_integers_are_refused() -> None:
    def convert(atoms: Atoms) -> None:
        atoms.arrays["numbers"] = atoms.numbers + 0.5

    refused(changed(GOOD, convert), "atomic numbers must be integers, got dtype float64")
