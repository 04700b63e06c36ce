"""Labelled structures from files: extended XYZ, ASE databases, chgnet's JSON, and whatever else ASE reads.

Everything is brought into ASE's units and signs here, and nowhere else.
"""

import bz2
import gzip
import io
import json
import logging
import lzma
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
from ase import Atoms, units
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

_log = logging.getLogger(__name__)

Array = NDArray[np.float64]

KILOBAR = -0.1 * units.GPa  # VASP's stress, compression positive, → eV/Å³, tension positive
CORRECTION = "mp2020_correction"  # eV per cell, to be added to what VASP has printed
REFERENCE = "REF_"  # in front of the names of labels, where a file also holds results of something else
EXTENDED_XYZ = (".extxyz", ".xyz")
COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """One structure and what is known of it; None where nothing is. NaN in an array: not known of this atom."""

    atoms: Atoms  # the structure only: no calculator, no constraints, no info
    energy: float | None  # eV, whole structure
    forces: Array | None  # (atoms, 3) eV/Å
    stress: Array | None  # (3, 3) eV/Å³, tension positive
    magmoms: Array | None  # (atoms,) μ_B, absolute values
    source: str  # where it comes from, for messages


def read_labelled(source: str | os.PathLike[str]) -> list[Labelled]:
    """All structures of a file with their labels, in the order of the file.

    `.json` (or `.json.gz`, `.xz`, `.bz2`) is what chgnet reads and writes: {material: {frame: {…}}} as in MPtrj, a
    list of such frames, or one object of lists as `parse_vasp_dir` saves it.  There energies are per atom, and stress
    is in kilobar with compression positive.  `.db` is an ASE database.  Everything else is read by `ase.io`, in ASE's
    units: extended XYZ above all, compressed or not, or a `vasprun.xml`.  In a file of ASE's, labels with REF_ before
    their names come first, and a `virial` (eV) stands for a stress.

    If a structure has `mp2020_correction` (eV per cell), it is added to its energy, as models 0.3.0 and 0.2.0 need it.
    Magnetic moments become absolute values.  A stress counts only where all three directions are periodic.

    ValueError names what cannot be understood, and says so if there is no label at all in the file.
    """
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; labelled structures are read from one file at a time")
    kind = next((s.lower() for s in reversed(path.suffixes) if s.lower() not in COMPRESSED), "")
    labelled, corrected = [], 0
    for found in {".json": _read_json, ".db": _read_database}.get(kind, _read_frames)(path):
        labelled.append(_labelled(found))
        corrected += CORRECTION in found.values
    if not any(_has_label(one) for one in labelled):
        raise ValueError(f"{path}: no energy, forces, stress or magnetic moments in any of {len(labelled)} structures")
    if corrected:
        _log.info("%s: %s added to the energies of %d structures", path, CORRECTION, corrected)
    if 0 < corrected < len(labelled):
        missing = len(labelled) - corrected
        _log.warning("%s: %d of %d structures have no %s", path, missing, len(labelled), CORRECTION)
    return labelled


@dataclass(frozen=True, slots=True)
class _Found:
    """A structure, its labels by ASE's names as the file has them, but in ASE's units, and its place in the file."""

    atoms: Atoms
    values: Mapping[str, Any]
    source: str


def _has_label(one: Labelled) -> bool:
    return any(label is not None for label in (one.energy, one.forces, one.stress, one.magmoms))


def _labelled(found: _Found) -> Labelled:
    """The labels brought into shape; ValueError names the structure."""
    atoms, values, n = found.atoms, found.values, len(found.atoms)
    try:
        energy = _array(values.get("energy"), "energy", ())
        magmoms = _array(values.get("magmoms"), "magmoms", (n,), (n, 3))
        if magmoms is not None:
            magmoms = np.abs(magmoms) if magmoms.ndim == 1 else np.linalg.norm(magmoms, axis=1)
        return Labelled(
            atoms=Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc),
            energy=None if energy is None else float(energy) + float(values.get(CORRECTION, 0.0)),
            forces=_array(values.get("forces"), "forces", (n, 3)),
            stress=_stress(values, atoms),
            magmoms=magmoms,
            source=found.source,
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{found.source}: {error}") from error


def _stress(values: Mapping[str, Any], atoms: Atoms) -> Array | None:
    """Stress (3, 3), eV/Å³; None if there is none, or no volume that it could belong to."""
    if not atoms.pbc.all():
        return None
    stress, virial = (_array(values.get(name), name, (3, 3), (6,), (9,)) for name in ("stress", "virial"))
    if stress is None:
        if virial is None:
            return None
        stress = -virial / atoms.get_volume()
    full: Array = voigt_6_to_full_3x3_stress(stress) if stress.shape == (6,) else stress.reshape(3, 3)
    return full


def _array(value: Any, name: str, *shapes: tuple[int, ...]) -> Array | None:
    """As float64 in one of these shapes; None where nothing is known."""
    if value is None or np.size(value) == 0:
        return None
    array = np.array(value, dtype=np.float64)
    if array.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise ValueError(f"{name}: shape {array.shape}, expected {expected}")
    if np.isinf(array).any():
        raise ValueError(f"{name}: infinite; leave out, or write as nan, what is not known")
    return None if np.isnan(array).all() else array


def _read_frames(path: Path) -> Iterator[_Found]:
    """The frames of a file that ASE reads, with their results, or with what their info and arrays say."""
    for number, atoms in enumerate(_frames(path)):
        given = {} if atoms.calc is None else dict(atoms.calc.results)
        given = atoms.info | atoms.arrays | given
        values = {name: given[name] for name in ("energy", "forces", "stress", "magmoms", CORRECTION) if name in given}
        for name in ("energy", "forces", "stress", "magmoms", "virial"):
            for key in (name, f"{name}s", f"{REFERENCE}{name}", f"{REFERENCE}{name}s"):
                if key in given and (key.startswith(REFERENCE) or name == "virial"):
                    values[name] = given[key]
        yield _Found(atoms, values, f"{path}@{number}")


def _frames(path: Path) -> Iterator[Atoms]:
    """The frames of a file; ValueError if ASE cannot read it."""
    opened = COMPRESSED.get(path.suffix.lower())
    try:
        if opened is None or Path(path.stem).suffix.lower() not in EXTENDED_XYZ:
            yield from ase.io.iread(path, index=":", do_not_split_by_at_sign=True)
            return
        # ASE goes back and forth in a file; in a compressed one that means decompressing it again and again.
        with opened(path, "rt", encoding="utf-8") as file:
            text = io.StringIO(file.read())
        yield from ase.io.iread(text, index=":", format="extxyz")
    except Exception as error:  # ASE's readers raise anything at all on a damaged file
        raise ValueError(f"{path}: cannot be read by ase.io: {type(error).__name__}: {error}") from error


def _read_database(path: Path) -> Iterator[_Found]:
    with ase.db.connect(path) as database:
        for row in database.select():
            names = ("energy", "forces", "stress", "magmoms", CORRECTION)
            yield _Found(row.toatoms(), {name: row[name] for name in names if name in row}, f"{path}@{row.id}")


def _read_json(path: Path) -> Iterator[_Found]:
    """The frames of chgnet's JSON; see `read_labelled`."""
    with COMPRESSED.get(path.suffix.lower(), open)(path, "rt", encoding="utf-8") as file:
        try:
            content = json.load(file)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: no JSON: {error}") from error
    for name, frame in _json_frames(content, path):
        source = f"{path}@{name}"
        try:
            atoms = _structure(frame["structure"])
            yield _Found(atoms, _json_labels(frame, len(atoms)), source)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{source}: not a frame of chgnet's: {type(error).__name__}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error


def _json_frames(content: Any, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and content of each frame."""
    if isinstance(content, Mapping) and isinstance(content.get("structure"), Sequence):
        for number in range(len(content["structure"])):
            yield str(number), {key: column[number] for key, column in content.items() if column}
    elif isinstance(content, Mapping) and all(isinstance(frames, Mapping) for frames in content.values()):
        for material, frames in content.items():
            for name, frame in frames.items():
                yield f"{material}/{name}", frame
    elif isinstance(content, Sequence) and not isinstance(content, str):
        for number, frame in enumerate(content):
            yield str(number), frame
    else:
        raise ValueError(
            f"{path}: this JSON is not chgnet's: expected {{material: {{frame: {{…}}}}}}, a list of frames, or lists "
            "under 'structure', 'energy_per_atom', 'force', 'stress' and 'magmom'"
        )


def _json_labels(frame: Mapping[str, Any], n_atoms: int) -> dict[str, Any]:
    """Labels of a frame in ASE's units. What chgnet is trained on is `energy_per_atom`, corrected in MPtrj."""
    energy = frame.get("energy_per_atom")
    if energy is None:
        energy = frame.get("corrected_total_energy", frame.get("uncorrected_total_energy"))
    else:
        energy = energy * n_atoms
    stress = frame.get("stress")
    return {
        "energy": energy,
        "forces": frame.get("force"),
        "stress": None if stress is None else np.array(stress, dtype=np.float64) * KILOBAR,
        "magmoms": frame.get("magmom"),
    }


def _structure(found: Mapping[str, Any]) -> Atoms:
    """Atoms of what pymatgen's `Structure.as_dict()` gives, without pymatgen."""
    if any(len(site["species"]) != 1 or site["species"][0].get("occu", 1) != 1 for site in found["sites"]):
        raise ValueError("sites with partial occupancy are no structure of atoms")
    return Atoms(
        symbols=[site["species"][0]["element"] for site in found["sites"]],
        scaled_positions=np.array([site["abc"] for site in found["sites"]]),
        cell=found["lattice"]["matrix"],
        pbc=found["lattice"].get("pbc", True),
    )
