"""Where a path starts from: two ends that fit each other, and images between them."""

import logging

import numpy as np
from ase import Atoms
from ase.build import minimize_rotation_and_translation
from ase.geometry import find_mic
from ase.mep import NEB, idpp_interpolate
from scipy.optimize import linear_sum_assignment

_log = logging.getLogger(__name__)

SAME_CELL = 1e-4  # Å; as much may be lost when a cell is written to a file
SAME_PLACE = 1e-2  # Å; what moves less goes nowhere
FAR = 0.5  # Å; what moves less only makes room


def matched(initial: Atoms, final: Atoms) -> list[Atoms]:
    """The two ends; ValueError if they are not the same atoms in the same order in the same cell, or do not differ."""
    if len(initial) != len(final):
        raise ValueError(f"initial has {len(initial)} atoms and final has {len(final)}; a path needs the same atoms")
    if (other := np.flatnonzero(initial.numbers != final.numbers)).size:
        n = int(other[0])
        raise ValueError(
            f"atom {n} is {initial.symbols[n]} in initial and {final.symbols[n]} in final ({len(other)} such atoms); "
            "bring the atoms into the same order"
        )
    if (initial.pbc != final.pbc).any():
        raise ValueError(f"pbc is {initial.pbc.tolist()} in initial, but {final.pbc.tolist()} in final")
    difference = np.abs(initial.cell.array - final.cell.array)[initial.pbc].max(initial=0)
    if difference > SAME_CELL:
        raise ValueError(
            f"the cells of initial and final differ by up to {difference:.4f} Å, and a path needs one cell: make final "
            "from initial by moving atoms, and relax both with relax_cell=False"
        )
    final.set_cell(initial.cell)
    return [initial, final]


def unwrapped(initial: Atoms, final: Atoms) -> tuple[Atoms, Atoms]:
    """Both ends; the final one brought close to the initial by lattice vectors or, if there are none, by turning it."""
    if not initial.pbc.any():
        minimize_rotation_and_translation(initial, final)
    moves, lengths = find_mic(final.positions - initial.positions, initial.cell, initial.pbc)
    if lengths.max() < SAME_PLACE:
        raise ValueError(f"initial and final are the same: no atom moves by more than {lengths.max():.1g} Å")
    final.set_positions(initial.positions + moves, apply_constraint=False)
    _note_order(initial, final, lengths)
    return initial, final


def _note_order(initial: Atoms, final: Atoms, lengths: np.ndarray) -> None:
    """Logs that atoms of one element would move much less if they were numbered otherwise: a usual mistake."""
    far = lengths > FAR
    shortest = 0.0
    for z in set(initial.numbers[far]):
        these = np.flatnonzero(far & (initial.numbers == z))
        between = final.positions[these] - initial.positions[these, None]
        ways = find_mic(between.reshape(-1, 3), initial.cell, initial.pbc)[1].reshape(len(these), len(these))
        shortest += ways[linear_sum_assignment(ways)].sum()
    if shortest < lengths[far].sum() / 2:
        _log.warning(
            "atoms move %.1f Å in all, but only %.1f Å if those of one element are renumbered: check that the atoms of "
            "initial and final are in the same order",
            lengths[far].sum(),
            shortest,
        )


def note_forces(initial: Atoms, final: Atoms, fmax: float) -> None:
    """Logs that an end, with its results attached, is not at a minimum."""
    for name, end in ("initial", initial), ("final", final):
        largest = np.linalg.norm(end.get_forces(), axis=1).max()
        if largest > fmax:
            _log.warning(
                "%s is not at a minimum, which puts the barrier off: forces up to %.2g eV/Å remain; see relax_ends",
                name,
                largest,
            )


def interpolated(initial: Atoms, final: Atoms, images: int, interpolation: str) -> list[Atoms]:
    """Both ends and so many `images` between them, without calculators."""
    if interpolation not in ("idpp", "linear"):
        raise ValueError(f"interpolation={interpolation!r} is not 'idpp' or 'linear'")
    frames = [initial.copy(), *(initial.copy() for _ in range(images)), final.copy()]
    band = NEB(frames, method="improvedtangent")
    band.interpolate(mic=False, apply_constraint=False)  # final was brought close already
    if interpolation == "idpp":
        _refuse_meetings(frames)
        idpp_interpolate(band, traj=None, log=None, mic=bool(initial.pbc.any()))
    return frames


def _refuse_meetings(frames: list[Atoms]) -> None:
    """IDPP pushes atoms apart, and has no direction to push where two are on one spot."""
    for n, frame in enumerate(frames):
        distances = frame.get_all_distances(mic=True)
        np.fill_diagonal(distances, np.inf)
        i, j = np.unravel_index(distances.argmin(), distances.shape)
        if distances[i, j] < SAME_PLACE:
            raise ValueError(
                f"image {n}: atoms {i} and {j} meet half-way; check that the atoms of initial and final are in the "
                "same order, or move one of them a little to the side"
            )
