"""The minimum that phonons, equations of state and elastic constants start from, and the minima of strained cells."""

import logging
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.optimize.optimize import Optimizer

from ase_fastchgnet.calculator import FastCHGNet
from ase_fastchgnet.progress import progress as progress_of
from ase_fastchgnet.workflows.calculators import results_of, with_results
from ase_fastchgnet.workflows.relaxation import RelaxationError, RelaxOptions, relax
from ase_fastchgnet.workflows.relaxation_many import Outcome, relax_as_completed

_log = logging.getLogger(__name__)

STEPS = 1000  # LBFGS needs a tenth of them where there is a minimum


def precise(calculator: Calculator | None) -> Calculator:
    """`calculator`, by default FastCHGNet in float64; float32 is allowed, and logged."""
    if calculator is None:
        return FastCHGNet(dtype="float64")
    if isinstance(calculator, FastCHGNet) and calculator.parameters["dtype"] == "float32":
        _log.warning("float32: small differences of forces are wanted here, better use FastCHGNet(dtype='float64')")
    return calculator


def crystal_at_minimum(
    atoms: Atoms,
    calculator: Calculator,
    *,
    relaxed: bool,
    fmax: float,
    fix_symmetry: bool = False,
    optimizer: str | type[Optimizer] = "LBFGS",
    progress: bool | None = None,
) -> Atoms:
    """`atoms`, their cell too, relaxed to `fmax` (eV/Å); without constraints, results attached.

    If they are `relaxed` already they stay where they are, and forces larger than `fmax` are logged.  ValueError if
    they are not periodic in three directions, RelaxationError if the relaxation does not converge.
    """
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise ValueError(
            f"needs a crystal, periodic in three directions; pbc is {atoms.pbc.tolist()} and the cell has "
            f"{atoms.cell.rank} independent vectors"
        )
    if relaxed:
        (results,) = results_of([atoms], calculator)
        if (largest := np.linalg.norm(results["forces"], axis=1).max()) > fmax:
            _log.warning(
                "%s is not at a minimum: forces up to %.2g eV/Å are left", atoms.get_chemical_formula(), largest
            )
    else:
        options: RelaxOptions = {**_options(fmax, optimizer), "fix_symmetry": fix_symmetry}
        atoms = _converged(relax(atoms, calculator, progress=progress, **options))
        results = atoms.calc.results
    atoms = atoms.copy()
    atoms.set_constraint()
    return with_results(atoms, results)


def ions_at_minimum(
    strained: Sequence[Atoms],
    calculator: Calculator,
    *,
    fmax: float,
    optimizer: str | type[Optimizer] = "LBFGS",
    progress: bool | None = None,
) -> list[Atoms]:
    """The same structures, atoms relaxed to `fmax` (eV/Å) in cells that stay, results attached.

    FastCHGNet relaxes all of them together, any other calculator one by one.  RelaxationError if one does not converge.
    """
    options: RelaxOptions = {**_options(fmax, optimizer), "relax_cell": False}
    if isinstance(calculator, FastCHGNet):
        outcomes = relax_as_completed(strained, calculator, **options)
    else:
        outcomes = ((n, relax(atoms, calculator, progress=False, **options)) for n, atoms in enumerate(strained))
    minima: dict[int, Atoms] = {}
    with progress_of("strained cells", len(strained), progress) as meter:
        for number, found in outcomes:
            minima[number] = _converged(found)
            meter.update(len(minima))
    return [minima[number] for number in range(len(strained))]


def evaluated(atoms: Sequence[Atoms], calculator: Calculator) -> list[Atoms]:
    """The same structures, results attached."""
    return [with_results(a.copy(), results) for a, results in zip(atoms, results_of(atoms, calculator), strict=True)]


def deformed(atoms: Atoms, deformation: np.ndarray) -> Atoms:
    """`atoms` with each vector r, of the cell and to the atoms, replaced by `deformation` @ r."""
    moved: Atoms = atoms.copy()
    moved.set_cell(atoms.cell.array @ np.transpose(deformation), scale_atoms=True)
    return moved


def _options(fmax: float, optimizer: str | type[Optimizer]) -> RelaxOptions:
    return {"fmax": fmax, "steps": STEPS, "optimizer": optimizer, "keep_frames": False}


def _converged(found: Outcome[Atoms]) -> Atoms:
    if isinstance(found, Exception):
        raise found
    if not found.converged:
        raise RelaxationError(
            f"the relaxation does not converge: after {found.n_steps} steps forces of {found.fmax:.2g} eV/Å are left; "
            "relax the structure on its own first, with another optimizer or in float64, or raise fmax",
            found.frames,
        )
    return found.structure
