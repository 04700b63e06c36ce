"""Bad input is refused here, before any arithmetic; every error says what, where, got and remedy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import complete_cell
from numpy.typing import NDArray

from .arrays import Bools, Floats, Ints
from .neighbors import CandidateBonds, heights

MAX_NUMBER = 94  # CHGNet was trained on hydrogen to plutonium
MAX_COORDINATE = 1e6  # Å; beyond it float64 no longer resolves a distance to 1e-9 Å
MIN_DISTANCE = 0.01  # Å; the closest nuclei in any material are 50 times further apart
MIN_SOLIDITY = 1e-4  # volume of the cell over that of a rectangular box with edges of the same lengths
MAX_NEIGHBORS = 20_000  # per atom; diamond has 160 within 6 Å, diamond at a tenth of its bond length 160,000
MAX_STEPS = 10_000_000_000  # of one neighbour search, a minute or two; 4,096 atoms in a crystal need 1e6


class Geometry(NamedTuple):
    """Where the atoms are: checked copies, so that moving the Atoms afterwards changes nothing here."""

    numbers: Ints  # (atoms,)
    positions: Floats  # (atoms, 3) Å
    cell: Floats  # (3, 3) Å, as given
    pbc: Bools  # (3,)


def read_geometry(atoms: Atoms, system: int) -> Geometry:
    """Atomic numbers, positions, cell and pbc of `atoms`, refused unless they are finite and within CHGNet's range."""
    if not isinstance(atoms, Atoms):
        raise TypeError(f"system {system}: expected an ase.Atoms, got {type(atoms).__name__}")
    if len(atoms) == 0:
        raise ValueError(f"system {system}: there are no atoms; CHGNet needs at least one")
    numbers = atoms.numbers
    if numbers.dtype.kind not in "iu":
        raise ValueError(f"system {system}: atomic numbers must be integers, got dtype {numbers.dtype}")
    if numbers.min() < 1 or numbers.max() > MAX_NUMBER:
        _refuse_number(numbers, system)
    positions = _copy_floats(atoms.positions, "positions", system)
    cell = _copy_floats(atoms.cell.array, "cell vectors", system)
    # written so that NaN fails it too
    if not np.abs(positions).max() <= MAX_COORDINATE:
        atom, axis = np.argwhere(~(np.abs(positions) <= MAX_COORDINATE))[0]
        raise ValueError(
            f"system {system}: atom {atom} ({chemical_symbols[numbers[atom]]}) has {'xyz'[axis]} = "
            f"{positions[atom, axis]} Å; coordinates must be finite and within ±{MAX_COORDINATE:g} Å: "
            "look for an exploding trajectory, or move the atoms into the cell with atoms.wrap()"
        )
    if not np.abs(cell).max() <= MAX_COORDINATE:
        row = np.argwhere(~(np.abs(cell) <= MAX_COORDINATE))[0, 0]
        raise ValueError(
            f"system {system}: cell vector {row} is {cell[row].tolist()} Å; its components must be finite and "
            f"within ±{MAX_COORDINATE:g} Å: set it with atoms.set_cell(), or to zero with pbc=False for no cell"
        )
    return Geometry(numbers.astype(np.int32), positions, cell, np.array(atoms.pbc))


def complete_lattice(geometry: Geometry, system: int) -> Floats:
    """The cell (3, 3) with rows along non-periodic axes replaced by unit vectors at right angles to the rest.

    Refused unless the periodic vectors are linearly independent.
    """
    periodic = geometry.cell[geometry.pbc]
    lengths = np.sqrt((periodic**2).sum(axis=1))
    if not lengths.all():
        axis = np.flatnonzero(geometry.pbc)[lengths == 0][0]
        raise ValueError(
            f"system {system}: pbc is True along axis {axis}, but cell vector {axis} is zero; "
            "set the cell, or pbc=False along that axis"
        )
    directions = periodic / lengths[:, None]
    if np.linalg.det(directions @ directions.T) < MIN_SOLIDITY**2:
        raise ValueError(
            f"system {system}: the periodic cell vectors {periodic.tolist()} Å are linearly dependent, or nearly so; a "
            "slab needs pbc=(True, True, False), and ase.geometry.minkowski_reduce straightens a skewed cell"
        )
    if len(periodic) == 3:
        return geometry.cell
    lattice: Floats = complete_cell(np.where(geometry.pbc[:, None], geometry.cell, 0.0))
    return lattice


def check_search_cost(box: Floats, n_atoms: int, radius: float, system: int) -> None:
    """Refuse a cell so small, flat or skewed that the search would run for hours or fill the memory."""
    volume = abs(np.linalg.det(box))
    height = heights(box)
    shortest = np.sqrt((box**2).sum(axis=1)).min()
    # atoms in a ball; at least the images of one atom on a disc of a lattice plane, or on a piece of a lattice line
    ball, disc, line = (
        4 / 3 * np.pi * radius**3 / volume,
        np.pi * radius**2 * height.max() / volume,
        2 * radius / shortest,
    )
    n_neighbors = max(n_atoms * ball, disc, line)
    # vesin visits the surroundings of each search cell (1e5 at most), and there an atom meets all others
    grid = np.maximum(np.trunc(height / radius), 1)
    grid = np.maximum(grid * min(1, np.cbrt(1e5 / grid.prod())), 1)
    surroundings = float(np.prod(2 * np.ceil(radius * grid / height) + 1))
    n_steps = surroundings * (grid.prod() + n_atoms**2 / grid.prod())
    if n_neighbors > MAX_NEIGHBORS or n_steps > MAX_STEPS:
        raise ValueError(
            f"system {system}: about {n_neighbors:.3g} neighbours per atom within {radius:.3g} Å, found in "
            f"{n_steps:.3g} steps (limits {MAX_NEIGHBORS:.3g} and {MAX_STEPS:.3g}); the cell is too small, "
            f"flat or skewed for {n_atoms} atom(s), its heights are {np.round(height, 4).tolist()} Å: check its units "
            "(Å), or reduce it with ase.geometry.minkowski_reduce"
        )


def check_distances(squared_lengths: Floats, bonds: CandidateBonds, numbers: Ints, system: int) -> None:
    """Refuse two atoms on one spot, periodic images included."""
    if squared_lengths.min(initial=np.inf) >= MIN_DISTANCE**2:
        return
    bond = int(squared_lengths.argmin())
    i, j = int(bonds.center[bond]), int(bonds.neighbor[bond])
    shift = bonds.image[:, bond].astype(int).tolist()
    through = f" through the periodic image {shift}" if any(shift) else ""
    raise ValueError(
        f"system {system}: atoms {i} ({chemical_symbols[numbers[i]]}) and {j} ({chemical_symbols[numbers[j]]}) are "
        f"{np.sqrt(squared_lengths[bond]):.4f} Å apart{through}, closer than {MIN_DISTANCE} Å; "
        "look for a duplicate atom, or a cell that is too small"
    )


def _copy_floats(array: object, name: str, system: int) -> Floats:
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(f"system {system}: {name} are a masked array; pass plain numbers")
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        kind = getattr(array, "dtype", type(array).__name__)
        raise ValueError(f"system {system}: {name} must be an array of real numbers, got {kind}")
    return np.array(array, dtype=np.float64, order="C")


def _refuse_number(numbers: NDArray[np.integer], system: int) -> None:
    atom = int(np.flatnonzero((numbers < 1) | (numbers > MAX_NUMBER))[0])
    z = int(numbers[atom])
    symbol = chemical_symbols[z] if 0 <= z < len(chemical_symbols) else "no element"
    raise ValueError(
        f"system {system}: atom {atom} has atomic number {z} ({symbol}); CHGNet knows the elements 1 (H) to "
        f"{MAX_NUMBER} (Pu): remove the atom or replace its element"
    )
