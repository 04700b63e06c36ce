"""Checkpoints of molecular dynamics: everything the next step depends on, to the last bit, in one file."""

import hashlib
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.md.md import MolecularDynamics

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error)  # what reading a damaged archive may raise besides
FORMAT = 1  # changes when older checkpoints cannot be continued any more


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A moment of a run: what moves, and how far its files have been written."""

    step: int
    run: Mapping[str, Any]  # what makes it this run and no other, see `identity`
    files: Mapping[str, Any]  # how to find the end of each file
    rng: Mapping[str, Any]  # state of a numpy generator
    arrays: Mapping[str, np.ndarray]  # positions, momenta and cell of the atoms; attributes of the integrator

    @classmethod
    def of(
        cls,
        dynamics: MolecularDynamics,
        attributes: tuple[str, ...],
        rng: np.random.Generator,
        run: Mapping[str, Any],
        files: Mapping[str, Any],
    ) -> "Checkpoint":
        """The present moment of `dynamics`, whose next step depends on `attributes` besides its atoms."""
        atoms = dynamics.atoms
        arrays = {name: np.array(_get(dynamics, name)) for name in attributes}
        arrays |= {"positions": atoms.get_positions(), "momenta": atoms.get_momenta(), "cell": atoms.cell.array.copy()}
        return cls(step=dynamics.nsteps, run=run, files=files, rng=rng.bit_generator.state, arrays=arrays)

    def restore_atoms(self, atoms: Atoms, rng: np.random.Generator) -> None:
        """Put atoms and random numbers where they were."""
        atoms.set_cell(self.arrays["cell"], scale_atoms=False)
        atoms.set_positions(self.arrays["positions"], apply_constraint=False)
        atoms.set_momenta(self.arrays["momenta"], apply_constraint=False)
        rng.bit_generator.state = dict(self.rng)

    def restore_dynamics(self, dynamics: MolecularDynamics, attributes: tuple[str, ...]) -> None:
        """Put the integrator where it was."""
        dynamics.nsteps = self.step
        for name in attributes:
            path, _, last = name.rpartition(".")
            value = self.arrays[name]
            setattr(_get(dynamics, path), last, float(value) if value.ndim == 0 else value.copy())

    def save(self, path: Path) -> None:
        """Replace the file at `path`; a kill at any moment leaves the old one or the new one."""
        header = {"format": FORMAT, "step": self.step, "run": self.run, "files": self.files, "rng": self.rng}
        stream = io.BytesIO()
        np.savez(stream, header=np.array(json.dumps(header)), **self.arrays)  # type: ignore[arg-type]
        unfinished = path.with_name(f".{path.name}.unfinished")
        with open(unfinished, "wb") as file:
            file.write(stream.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)


def load(path: Path) -> Checkpoint:
    """The checkpoint in a file; nothing in it is run.  ValueError if it is damaged."""
    try:
        arrays = _read(path.read_bytes())
        header = json.loads(str(arrays.pop("header")))
        if header.pop("format") != FORMAT:
            raise ValueError("written by another version of ase-fastchgnet")
        return Checkpoint(**header, arrays=arrays)
    except (ValueError, LookupError, TypeError, EOFError, RuntimeError, *ZIP_ERRORS) as error:
        raise ValueError(
            f"{path} is no checkpoint that can be continued ({error}); restore it from a copy, or start the run again "
            "with overwrite"
        ) from error


def _read(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an npz file, all checksums compared."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is damaged")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return dict(file)


def identity(atoms: Atoms, calculator: Calculator, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be the same for a run to be continued; `atoms` are those it started from.  JSON-ready."""
    digest = hashlib.sha256()
    for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, atoms.get_masses(), atoms.get_momenta()):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(repr([constraint.todict() for constraint in atoms.constraints]).encode())
    return {**settings, "calculator": name_of(calculator), "structure": f"{atoms.symbols} {digest.hexdigest()}"}


def check_same_run(path: Path, checkpoint: Checkpoint, run: Mapping[str, Any]) -> None:
    """ValueError naming what differs, if the checkpoint is of a run other than `run`."""
    old, new = dict(checkpoint.run), json.loads(json.dumps(run))
    different = [
        name if name == "structure" else f"{name} (was {old.get(name)}, now {new.get(name)})"
        for name in new | old
        if old.get(name) != new.get(name)
    ]
    if different:
        raise ValueError(
            f"{path} belongs to another run; what differs: {', '.join(different)}.  Resume with what it was, or choose "
            "another folder"
        )


def name_of(calculator: Calculator) -> str:
    """Which numbers a calculator gives, as far as can be told."""
    options = calculator.todict()
    if "model_sha256" in options:  # FastCHGNet, or one that speaks for it
        direct = " direct" if options["forces"] == "direct" else ""
        dtype = "tf32" if options["tf32"] else options["dtype"]
        return f"FastCHGNet {options['model_sha256']} {dtype}{direct}"
    return type(calculator).__name__


def _get(root: object, path: str) -> Any:
    return reduce(getattr, path.split("."), root) if path else root
