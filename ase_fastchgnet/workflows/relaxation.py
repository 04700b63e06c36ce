"""relax: a structure brought to the nearest minimum of energy or enthalpy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Self, TypedDict

import ase.io
import ase.optimize
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.constraints import FixSymmetry
from ase.optimize.optimize import Optimizer

from ase_fastchgnet.calculator import FastCHGNet
from ase_fastchgnet.figures import new_figure
from ase_fastchgnet.progress import progress as progress_of
from ase_fastchgnet.workflows.calculators import calculated, with_results
from ase_fastchgnet.workflows.cell_filter import CellFilter
from ase_fastchgnet.workflows.structures import StructureT, as_atoms, as_given

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_FORCE = 1e3  # eV/Å; what exceeds it, and the forces it started with, is no relaxation any more
MAX_RATIO = 4.0  # nor is a cell whose volume has grown or shrunk by more


class RelaxOptions(TypedDict, total=False):
    """The options that `relax` and `relax_many` share; `relax` says what they mean."""

    fmax: float
    steps: int
    optimizer: str | type[Optimizer]
    relax_cell: bool | None
    pressure: float
    mask: Sequence[bool] | None
    constant_volume: bool
    fix_symmetry: bool
    keep_frames: bool


class RelaxationError(RuntimeError):
    """A relaxation that went where no structure is; `frames` are the steps before."""

    def __init__(self, message: str, frames: list[Atoms]) -> None:
        super().__init__(message)
        self.frames = frames

    def __reduce__(self) -> tuple[type[Self], tuple[str, list[Atoms]]]:
        return type(self), (str(self), self.frames)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Relaxation(Generic[StructureT]):
    """A structure after its relaxation, and how it got there."""

    structure: StructureT  # of the kind that was given; Atoms carry their results, a Structure its magmoms
    energy: float  # eV
    forces: np.ndarray  # (n_atoms, 3) eV/Å, without constraints
    stress: np.ndarray | None  # (6,) eV/Å³, tension positive; None if the calculator does not give it
    magmoms: np.ndarray | None  # (n_atoms,) μ_B; None if the calculator does not give them
    converged: bool
    fmax: float  # eV/Å, the largest force that remains, on atoms and (in ASE's measure) on the cell
    n_steps: int
    frames: list[Atoms]  # every step with its results, the last is the final structure; only that if keep_frames=False

    def write(self, path: str | Path, *, trajectory: bool = False) -> None:
        """Write the final structure, or all frames, in the format that ASE reads from the file's name."""
        ase.io.write(path, self.frames if trajectory else self.frames[-1])

    def plot(self) -> "tuple[Figure, np.ndarray]":
        """Energy above the last, and the largest force on an atom, at each step; (figure, two axes)."""
        energies = np.array([frame.get_potential_energy() for frame in self.frames])
        forces = [np.linalg.norm(frame.get_forces(), axis=1).max() for frame in self.frames]
        figure, axes = new_figure(5.0, 4.0, nrows=2, sharex=True)
        above = 1e3 * (energies - energies[-1]) / len(self.forces)
        axes[0].plot(above, ".-")
        axes[0].set(yscale="symlog", ylabel="energy above the last\n(meV/atom)")
        axes[1].plot(forces, ".-")
        axes[1].set(yscale="log", ylabel="largest force (eV/Å)", xlabel="step")
        return figure, axes


def relax(
    structure: StructureT,
    calculator: Calculator | None = None,
    *,
    fmax: float = 0.05,
    steps: int = 500,
    optimizer: str | type[Optimizer] = "FIRE",
    relax_cell: bool | None = None,
    pressure: float = 0.0,
    mask: Sequence[bool] | None = None,
    constant_volume: bool = False,
    fix_symmetry: bool = False,
    keep_frames: bool = True,
    progress: bool | None = None,
) -> Relaxation[StructureT]:
    """The minimum nearest to `structure` (ase.Atoms with its constraints, or pymatgen Structure), which is not changed.

    calculator       any ASE calculator; None: FastCHGNet()
    fmax             eV/Å; converged when no force on an atom, nor on the cell in the measure of ASE's
                     FrechetCellFilter, is larger
    steps            at most so many; 0 is a single point
    optimizer        the name of a class in ase.optimize, or an ASE optimiser class
    relax_cell       whether the cell relaxes too; None: it does if it is periodic in three directions
    pressure         GPa, hydrostatic; needs the cell relaxed, as do the next two
    mask             which of the strains xx yy zz yz xz xy may change
    constant_volume  the cell changes its shape only
    fix_symmetry     keep the space group (ASE's FixSymmetry)
    keep_frames      keep every step in the result, not only the last
    progress         draw a bar; None: on a terminal

    Not converging is no error: see `converged`.  RelaxationError if the structure explodes: a force or a volume beyond
    all bounds, or a geometry that cannot be evaluated.
    """
    atoms = as_atoms(structure)
    atoms.calc = calculator or FastCHGNet()
    constraints = atoms.constraints
    if fix_symmetry:
        atoms.set_constraint([*constraints, FixSymmetry(atoms)])
    target: Atoms | CellFilter = atoms
    if _relaxes_cell(atoms, relax_cell, needed=bool(pressure or mask is not None or constant_volume)):
        target = CellFilter(  # type: ignore[no-untyped-call]
            atoms, mask, constant_volume=constant_volume, scalar_pressure=pressure * units.GPa
        )
    dynamics = _optimizer_class(optimizer)(target, logfile=None)  # type: ignore[arg-type]
    frames: list[Atoms] = []
    with progress_of("relax", steps, progress) as meter:
        for _ in _watched(dynamics, atoms, frames, fmax, steps):
            if not keep_frames:
                frames.clear()
            frames.append(with_results(atoms.copy(), calculated(atoms)))
            frames[-1].set_constraint(constraints)  # without FixSymmetry, which is ours
            meter.update(dynamics.nsteps, f"{atoms.get_potential_energy():.4f} eV  fmax {_largest(dynamics):.3f} eV/Å")
    return _relaxation(structure, frames, fmax=fmax, reached=_largest(dynamics), n_steps=dynamics.nsteps)


def _watched(dynamics: Optimizer, atoms: Atoms, frames: list[Atoms], fmax: float, steps: int) -> Iterator[None]:
    """Yields at the first geometry and after each step; RelaxationError where it is no structure any more."""
    volume = atoms.cell.volume
    limit = 0.0
    walk = dynamics.irun(fmax=fmax, steps=steps)
    while True:
        try:
            next(walk)
        except StopIteration:
            return
        except ValueError as error:
            if not frames:
                raise  # bad input, and not what became of it
            raise RelaxationError(f"step {dynamics.nsteps} leads to no structure: {error}", frames) from error
        force, ratio = np.abs(atoms.get_forces()).max(initial=0.0), atoms.cell.volume / volume if volume else 1.0
        limit = limit or max(MAX_FORCE, force)
        if not (np.isfinite(atoms.get_potential_energy()) and force <= limit and 1 / MAX_RATIO < ratio < MAX_RATIO):
            raise RelaxationError(
                f"the structure exploded: after step {dynamics.nsteps} its energy is "
                f"{atoms.get_potential_energy():.6g} eV, its largest force component {force:.3g} eV/Å, its volume "
                f"{ratio:.3g} times what it was; see the frames of this error, and start closer to a minimum or hold "
                "the cell with relax_cell=False",
                frames,
            )
        yield


def _relaxation(
    structure: StructureT, frames: list[Atoms], *, fmax: float, reached: float, n_steps: int
) -> Relaxation[StructureT]:
    results = frames[-1].calc.results
    return Relaxation(
        structure=as_given(with_results(frames[-1].copy(), results), structure),
        energy=results["energy"],
        forces=results["forces"],
        stress=results.get("stress"),
        magmoms=results.get("magmoms"),
        converged=reached < fmax,
        fmax=reached,
        n_steps=n_steps,
        frames=frames,
    )


def _relaxes_cell(atoms: Atoms, relax_cell: bool | None, *, needed: bool) -> bool:
    """Whether the cell relaxes; ValueError if it cannot although it has to."""
    periodic = bool(atoms.pbc.all()) and atoms.cell.rank == 3
    relaxes = periodic if relax_cell is None else relax_cell
    if relaxes and not periodic:
        raise ValueError(
            f"a cell relaxes only if it is periodic in three directions; pbc is {atoms.pbc.tolist()} and the cell has "
            f"{atoms.cell.rank} independent vectors: pass relax_cell=False, or set pbc and cell"
        )
    if needed and not relaxes:
        raise ValueError("pressure, mask and constant_volume concern the cell, which does not relax here")
    return relaxes


def _optimizer_class(optimizer: str | type[Optimizer]) -> type[Optimizer]:
    if not isinstance(optimizer, str):
        return optimizer
    names = [n for n, kind in vars(ase.optimize).items() if isinstance(kind, type) and issubclass(kind, Optimizer)]
    if optimizer not in names:
        raise ValueError(f"optimizer={optimizer!r} is not one of {', '.join(sorted(names))}")
    found: type[Optimizer] = getattr(ase.optimize, optimizer)
    return found


def _largest(dynamics: Optimizer) -> float:
    """What is compared with fmax, eV/Å."""
    target = dynamics.optimizable
    return float(target.gradient_norm(target.get_gradient()))
