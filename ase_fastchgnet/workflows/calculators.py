"""The calculator of a workflow, and the results of many structures with it."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator

from ase_fastchgnet.calculator import FastCHGNet


def results_of(
    structures: Sequence[Atoms], calculator: Calculator, properties: Collection[str] = ("energy", "forces", "stress")
) -> list[dict[str, Any]]:
    """Results of each structure under ASE's names and in ASE's units, in order.

    FastCHGNet evaluates them in batches and may return more than was asked for; any other ASE calculator (a sum with
    a dispersion correction, say) is asked one by one.
    """
    if isinstance(calculator, FastCHGNet):
        return [prediction.results() for prediction in calculator.evaluate(structures, properties=properties)]
    return [{name: calculator.get_property(name, atoms) for name in properties} for atoms in structures]


def with_results(atoms: Atoms, results: dict[str, Any]) -> Atoms:
    """`atoms` with `results` attached as a calculator that computes nothing, as ASE's own readers leave it."""
    kept = {name: np.array(value) if isinstance(value, np.ndarray) else value for name, value in results.items()}
    atoms.calc = SinglePointCalculator(atoms, **kept)
    return atoms


def calculated(atoms: Atoms) -> dict[str, Any]:
    """What the calculator of `atoms` knows of the present geometry; nothing is computed."""
    names = ("energy", "free_energy", "energies", "forces", "stress", "magmoms", "magmom")
    found = {}
    for name in names:
        if name not in atoms.calc.implemented_properties:
            continue
        value = atoms.calc.get_property(name, atoms, allow_calculation=False)
        if value is not None:
            found[name] = value
    return found
