"""Whether a device computes what the reference does: the reference model in float64, on the CPU."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

from ase_fastchgnet import FastCHGNet, Prediction, evaluate
from benchmarks._gpu_setting import CRYSTALS, WARM_UP, Row, Setting, capture, structure, trembling
from fastchgnet_kernels._launch import runs_kernels
from tests.structures import STRUCTURES

QUANTITIES = {"energy": "eV/atom", "forces": "eV/Å", "stress": "eV/Å³", "magmoms": "μ_B"}
# The limits of tests/model/test_parity.py; crystals with one or two kinds of sites, whose rows all round alike, have
# four times as much in float32.
BARS = {
    "float64": {"energy": 1e-9, "forces": 1e-8, "stress": 1e-9, "magmoms": 1e-8},
    "float32": {"energy": 4e-6, "forces": 5e-4, "stress": 6e-6, "magmoms": 1e-5},
}
COHERENCE = 4
KINDS: dict[str, dict[str, Any]] = {name: {"dtype": name} for name in BARS}
KINDS["tf32"] = {"dtype": "float32", "tf32": True}  # has no bar: a user who asks for it is told its error
SMALL = 64  # atoms of the crystals that the reference evaluates, and of which larger ones are made
LARGE = (4, 8)  # repeats of those: 4,096 and 32,768 atoms
QUICK = ("NaCl", "dimer too far to bond")
WAYS = {"step by step": False, "recorded": True}


class Exact(NamedTuple):
    """A structure, what is true of it, and how far from that float32 may be, in multiples of the bars."""

    atoms: Atoms
    prediction: Prediction
    slack: float


def measure(setting: Setting, *, full: bool) -> Iterator[Row]:
    """A row for each precision, way of evaluation and quantity: worst structure, its bar, and whether it repeats.

    Unless `full`, float32 alone, some of the structures and smaller repeats: enough to know that what is measured
    afterwards is worth measuring.
    """
    exact = references(chosen(setting, full))
    crystals = {name: one for name, one in exact.items() if name.rpartition("-")[0] in CRYSTALS}
    for kind in kinds(setting, full):
        for way, on in WAYS.items():
            with capture(on):
                yield from compare(exact, f"{len(exact)} structures", way, kind, setting)
        for n in (2,) if setting.quick else LARGE if full else LARGE[:1]:
            large = {name: repeated(one, n) for name, one in crystals.items()}
            with capture(False):
                yield from compare(large, f"{n**3} times {', '.join(large)}", "step by step", kind, setting)


def kinds(setting: Setting, full: bool) -> tuple[str, ...]:
    """TF32 is for kernels."""
    if not full:
        return ("float32",)
    return tuple(KINDS) if runs_kernels(setting.device) else tuple(BARS)


def chosen(setting: Setting, full: bool) -> dict[str, Atoms]:
    """Test structures, and crystals that speed is measured on."""
    if setting.quick:
        return {name: STRUCTURES[name] for name in QUICK} | {"Si-8": structure("Si-8")}
    large = [f"{name}-{SMALL}" for name in CRYSTALS]
    return dict(list(STRUCTURES.items())[:: 1 if full else 4]) | {name: structure(name) for name in large}


def references(structures: dict[str, Atoms]) -> dict[str, Exact]:
    """By the reference model in float64 on the CPU."""
    options = {"dtype": "float64", "device": "cpu", "backend": "reference", "on_isolated_atoms": "ignore"}
    found = evaluate(structures.values(), **options)  # type: ignore[arg-type]
    return {
        name: Exact(atoms, prediction, COHERENCE if len(np.unique(prediction.energies.round(6))) <= 2 else 1)
        for (name, atoms), prediction in zip(structures.items(), found, strict=True)
    }


def repeated(one: Exact, n: int) -> Exact:
    """n³ copies side by side: of every copy all is as it was, and the stress is the same."""
    p, copies = one.prediction, n**3
    assert p.forces is not None
    prediction = Prediction(
        energy=copies * p.energy,
        energies=np.tile(p.energies, copies),
        magmoms=np.tile(p.magmoms, copies),
        forces=np.tile(p.forces, (copies, 1)),
        stress=p.stress,
    )
    return Exact(one.atoms.repeat(n), prediction, one.slack)


def compare(exact: dict[str, Exact], of: str, way: str, kind: str, setting: Setting) -> list[Row]:
    """One row a quantity: the worst structure, in multiples of the bar that it has."""
    differences: dict[str, list[tuple[float, float, str]]] = {quantity: [] for quantity in QUANTITIES}
    repeats = True
    for name, one in exact.items():
        first, second = (walk(one.atoms, kind, setting) for _ in range(2))
        repeats &= equal(first, second)
        for quantity, difference in apart(first, one.prediction).items():
            slack = 1 if kind == "float64" else one.slack
            bar = BARS.get(kind, BARS["float32"])[quantity]
            differences[quantity].append((difference / (slack * bar), difference, name))
    rows = []
    for quantity, unit in QUANTITIES.items():
        share, worst, name = max(differences[quantity], default=(0.0, 0.0, ""))
        row = {"of": of, "way": way, "kind": kind, "quantity": quantity, "unit": unit, "worst": worst}
        rows.append(row | {"structure": name, "share_of_bar": share if kind in BARS else None, "repeats": repeats})
    return rows


def walk(atoms: Atoms, kind: str, setting: Setting) -> Prediction:
    """The prediction for `atoms` of a calculator that comes from nearby, as in dynamics."""
    calculator = FastCHGNet(device=str(setting.device), **KINDS[kind], on_isolated_atoms="ignore")
    moving = atoms.copy()
    tremble = trembling(moving)
    for _ in range(WARM_UP):
        tremble()
        calculator.calculate(moving, ("energy", "forces"))
    calculator.calculate(atoms, ("energy", "forces"))
    r = calculator.results
    return Prediction(
        energy=r["energy"], energies=r["energies"], magmoms=r["magmoms"], forces=r["forces"], stress=r.get("stress")
    )


def apart(found: Prediction, exact: Prediction) -> dict[str, float]:
    """Largest absolute difference of each quantity; energies are per atom. NaN counts as infinitely far."""
    pairs = {name: (getattr(found, name), getattr(exact, name)) for name in QUANTITIES}
    n = len(exact.energies)
    return {
        name: float(np.abs(np.nan_to_num(np.subtract(a, b), nan=np.inf)).max()) / (n if name == "energy" else 1)
        for name, (a, b) in pairs.items()
        if b is not None
    }


def equal(one: Prediction, other: Prediction) -> bool:
    """To the last bit."""
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in QUANTITIES)


def missed(rows: Sequence[Row]) -> list[str]:
    """What is wrong, in words; nothing if all is well."""
    found = [
        f"{r['quantity']} in {r['kind']} ({r['way']}, {r['of']}): {r['worst']:.1e} {r['unit']} at {r['structure']}, "
        f"{r['share_of_bar']:.1f} times the bar"
        for r in rows
        if r["share_of_bar"] is not None and r["share_of_bar"] > 1
    ]
    unsteady = {(r["kind"], r["way"], r["of"]): None for r in rows if not r["repeats"]}
    return found + [f"{kind} ({way}, {of}) does not repeat to the last bit" for kind, way, of in unsteady]
