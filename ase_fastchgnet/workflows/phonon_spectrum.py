"""What phonopy gets out of force constants, as plain arrays: bands, densities of states, thermal properties.

Frequencies are in THz; phonopy writes imaginary ones as negative numbers, and so do we.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase import units

from ase_fastchgnet.evaluation.prediction import Array

if TYPE_CHECKING:
    from phonopy import Phonopy
    from phonopy.phonon.mesh import Mesh

IMAGINARY = 0.05  # THz below zero; what rounding leaves of the acoustic modes at Γ stays within
LONGEST = 101  # q-points along the longest piece of the path
DOS_POINTS = 200


class Mode(NamedTuple):
    """One mode of vibration."""

    label: str  # of its q-point; "" between labelled points
    qpoint: tuple[float, float, float]  # in reciprocal vectors of the primitive cell
    frequency: float  # THz


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Band:
    """A straight piece of the path through the Brillouin zone."""

    start: str  # label of its first point, such as "Γ"
    end: str
    qpoints: Array  # (n, 3) in reciprocal vectors of the primitive cell
    distances: Array  # (n,) 1/Å along the path, 2π left out; a piece starts where the one before ends
    frequencies: Array  # (n, modes) THz, ascending


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dos:
    """Densities of states; the integral over all frequencies is the number of modes of the primitive cell."""

    frequencies: Array  # (n,) THz
    total: Array  # (n,) states per THz and primitive cell
    elements: dict[str, Array]  # (n,) each: the share of an element; they add up to the total


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Thermal:
    """Thermal properties of the harmonic crystal at constant volume; imaginary modes are left out."""

    temperatures: Array  # (n,) K
    free_energy: Array  # (n,) eV per atom, of the vibrations only
    entropy: Array  # (n,) J/K per mole of atoms
    heat_capacity: Array  # (n,) J/K per mole of atoms, at constant volume
    zero_point_energy: float  # eV per atom


class Spectrum(NamedTuple):
    """All that is computed from one set of force constants."""

    bands: tuple[Band, ...]
    dos: Dos
    thermal: Thermal
    imaginary: tuple[Mode, ...]
    imaginary_share: float


def spectrum(phonopy: "Phonopy", *, mesh: float, temperatures: Sequence[float]) -> Spectrum:
    """Bands along seekpath's path; the rest on a mesh centred on Γ of spacing 2π / `mesh` (Å) or less."""
    bands = tuple(_bands(phonopy))
    # Without the reduction by symmetry, because the projection on atoms needs all q-points.
    sampled = phonopy.run_mesh(mesh, with_eigenvectors=True, is_mesh_symmetry=False)
    return Spectrum(
        bands=bands,
        dos=_dos(phonopy, sampled.frequencies),
        thermal=_thermal(phonopy, temperatures),
        imaginary=_imaginary(bands, sampled),
        imaginary_share=float(np.mean(sampled.frequencies < -IMAGINARY)),
    )


def _bands(phonopy: "Phonopy") -> Iterator[Band]:
    import seekpath
    from phonopy.phonon.band_structure import get_band_qpoints

    primitive = phonopy.primitive
    # phonopy's own use of seekpath takes the coordinates of seekpath's standard cell, which `primitive` need not be.
    path = seekpath.get_path_orig_cell(primitive.totuple())
    ends = [[path["point_coords"][name] for name in piece] for piece in path["path"]]
    qpoints = get_band_qpoints(ends, npoints=LONGEST, rec_lattice=np.linalg.inv(primitive.cell))
    found = phonopy.run_band_structure(qpoints)
    pieces = zip(path["path"], found.qpoints, found.distances, found.frequencies, strict=True)
    for (start, end), q, distances, frequencies in pieces:
        yield Band(start=_label(start), end=_label(end), qpoints=q, distances=distances, frequencies=frequencies)


def _dos(phonopy: "Phonopy", frequencies: Array) -> Dos:
    lowest, highest = 1.03 * min(frequencies.min(), 0.0), 1.03 * frequencies.max()
    if lowest > -IMAGINARY:
        lowest = 0.0
    pitch = (highest - lowest) / DOS_POINTS
    found = phonopy.run_projected_dos(freq_min=lowest, freq_max=highest, freq_pitch=pitch)
    symbols = np.array(phonopy.primitive.symbols)
    elements = {str(symbol): found.projected_dos[symbols == symbol].sum(axis=0) for symbol in dict.fromkeys(symbols)}
    return Dos(frequencies=found.frequency_points, total=found.projected_dos.sum(axis=0), elements=elements)


def _thermal(phonopy: "Phonopy", temperatures: Sequence[float]) -> Thermal:
    found = phonopy.run_thermal_properties(temperatures=np.asarray(temperatures, float), exclude_gamma_acoustic=True)
    n_atoms = len(phonopy.primitive)
    per_atom = units.kJ / units.mol / n_atoms  # phonopy counts in kJ, or J, per mole of primitive cells
    return Thermal(
        temperatures=found.temperatures,
        free_energy=found.free_energy * per_atom,
        entropy=found.entropy / n_atoms,
        heat_capacity=found.heat_capacity / n_atoms,
        zero_point_energy=float(found.zero_point_energy) * per_atom,
    )


def _imaginary(bands: Sequence[Band], mesh: "Mesh") -> tuple[Mode, ...]:
    """Imaginary modes at the labelled points, the lowest first; before them the lowest of all, if it is elsewhere."""
    named: dict[tuple[str, float], Mode] = {}
    for band in bands:
        for label, end in ((band.start, 0), (band.end, -1)):
            for frequency in band.frequencies[end]:
                if frequency < -IMAGINARY:  # several times if pieces meet there or modes are degenerate; kept once
                    named.setdefault((label, round(frequency, 3)), _mode(label, band.qpoints[end], frequency))
    modes = sorted(named.values(), key=lambda mode: mode.frequency)
    lowest = min((_lowest(q, f) for q, f in _sampled(bands, mesh)), key=lambda mode: mode.frequency)
    if lowest.frequency < (modes[0].frequency - 1e-3 if modes else -IMAGINARY):  # the mesh may hold labelled points
        modes.insert(0, lowest)
    return tuple(modes)


def _sampled(bands: Sequence[Band], mesh: "Mesh") -> Iterator[tuple[Array, Array]]:
    """(qpoints, frequencies) of the mesh and of each piece of the path."""
    yield mesh.qpoints, mesh.frequencies
    for band in bands:
        yield band.qpoints, band.frequencies


def _lowest(qpoints: Array, frequencies: Array) -> Mode:
    number = int(frequencies.min(axis=1).argmin())
    return _mode("", qpoints[number], frequencies[number].min())


def _mode(label: str, qpoint: Array, frequency: float) -> Mode:
    q1, q2, q3 = (round(float(q), 6) for q in qpoint)
    return Mode(label, (q1, q2, q3), float(frequency))


def _label(name: str) -> str:
    """ "Γ" for seekpath's "GAMMA", "Σ₀" for "SIGMA_0"."""
    greek = {"GAMMA": "Γ", "SIGMA": "Σ", "DELTA": "Δ", "LAMBDA": "Λ"}
    letter, _, index = name.partition("_")
    return greek.get(letter, letter) + index.translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
