"""The calculator of a workflow, and the results of many structures with it."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator

from ase_fastchgnet.calculator import FastCHGNet
from ase_fastchgnet.parallel.crew import Devices
from ase_fastchgnet.parallel.scheduler import Submits
from ase_fastchgnet.workflows.sources import Entry
from ase_fastchgnet.workflows.streaming import EvaluationStream, in_order


def results_of(
    structures: Sequence[Atoms],
    calculator: Calculator,
    properties: Collection[str] = ("energy", "forces", "stress"),
    *,
    devices: Devices = None,
    executor: Submits | None = None,
) -> Iterator[dict[str, Any]]:
    """Results of each structure under ASE's names and in ASE's units, in order and as they come.

    FastCHGNet evaluates them in batches, on `devices` or by `executor` as `evaluate_many` does, and may return more
    than was asked for; any other ASE calculator (a sum with a dispersion correction, say) is asked one by one.
    ValueError if one cannot be evaluated.
    """
    if isinstance(calculator, FastCHGNet):
        stream = EvaluationStream(calculator, properties, devices, executor)
        entries = enumerate(Entry(id=str(number), atoms=atoms) for number, atoms in enumerate(structures))
        for one in in_order(stream.run(entries)):
            if one.prediction is None:
                raise ValueError(f"system {one.id}: {one.error}")
            yield one.prediction.results()
        return
    require_own_process(devices, executor, calculator)
    for atoms in structures:
        yield {name: calculator.get_property(name, atoms) for name in properties}


def require_own_process(devices: Devices, executor: Submits | None, calculator: Calculator) -> None:
    """ValueError if other processes are to work with a calculator that is not FastCHGNet."""
    if devices is not None or executor is not None:
        raise ValueError(f"devices and executor are for FastCHGNet; {type(calculator).__name__} works in this process")


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
