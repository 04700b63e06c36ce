"""Labels beside what a model says of the same structures: wrong units and signs show as factors between them."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from ase import units
from numpy.typing import NDArray

from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.training.findings import Finding
from ase_fastchgnet.training.labels import Labelled
from ase_fastchgnet.training.predict import predict
from ase_fastchgnet.training.reference_energies import fit

Floats = NDArray[np.float64]

SAMPLE = 48  # structures at most
SAMPLE_ATOMS = 1_500  # in them; one core evaluates them in a few seconds
ENOUGH = 12  # numbers that are large enough to be compared
NEAR = 1.6  # factor between labels and predictions up to which they are taken to agree: CHGNet's are too soft
FOLLOWS = 0.5  # correlation from which on labels and predictions are taken to speak of the same
STRESS_LEAST = 5e-3  # eV/Å³
SHIFTED = 0.1  # eV/atom, median difference of energies that is worth a word

# What labels may have been given in: its size in eV/Å, eV/Å³, eV.
FORCE_UNITS = {
    "eV/Å": 1.0,
    "Hartree/Bohr": units.Hartree / units.Bohr,
    "Rydberg/Bohr": units.Rydberg / units.Bohr,
    "kcal/mol/Å": units.kcal / units.mol,
    "kJ/mol/Å": units.kJ / units.mol,
    "meV/Å": 1e-3,
}
STRESS_UNITS = {
    "eV/Å³": 1.0,
    "GPa": units.GPa,
    "kilobar": 0.1 * units.GPa,
    "Pa": units.Pascal,
    "Hartree/Bohr³": units.Hartree / units.Bohr**3,
}
ENERGY_UNITS = {"Hartree": units.Hartree, "Rydberg": units.Rydberg, "kcal/mol": units.kcal / units.mol, "meV": 1e-3}


def compare_with_model(
    labelled: Sequence[Labelled], checkpoint: Checkpoint, device: torch.device | str
) -> Iterator[Finding]:
    """Findings about units, signs and energies, from some of the structures, chosen at random by a fixed seed."""
    sample = _sample(labelled)
    predicted = predict([one.atoms for one in sample], checkpoint, device=device)
    yield _differences(sample, predicted, checkpoint.name)
    yield from compare_forces(sample, predicted)
    yield from compare_stress(sample, predicted)
    yield from compare_energies(sample, predicted)


def _sample(labelled: Sequence[Labelled]) -> list[Labelled]:
    """A few dozen chosen at random, fewer if they are large."""
    chosen = np.random.default_rng(0).permutation(len(labelled))[:SAMPLE]
    n_before = np.cumsum([0, *(len(labelled[i].atoms) for i in chosen)])[:-1]
    return [labelled[i] for i in sorted(chosen[n_before < SAMPLE_ATOMS].tolist())]


def compare_forces(labelled: Sequence[Labelled], predicted: Sequence[Labelled]) -> Iterator[Finding]:
    """Are forces in eV/Å, and not gradients?"""
    label, model = _pairs(labelled, predicted, "forces")
    yield from _compare("forces", label, model, FORCE_UNITS, least=0.1, minus="they are gradients, not forces")


def compare_stress(labelled: Sequence[Labelled], predicted: Sequence[Labelled]) -> Iterator[Finding]:
    """Is stress in eV/Å³ with tension positive, and not a virial?"""
    known = [(a, b) for a, b in zip(labelled, predicted, strict=True) if a.stress is not None and b.stress is not None]
    if not known:
        return
    label = np.array([a.stress for a, _ in known]).ravel()
    model = np.array([b.stress for _, b in known]).ravel()
    volumes = np.repeat([a.atoms.get_volume() for a, _ in known], 9)
    large = _large(model, STRESS_LEAST) & np.isfinite(label)
    if large.sum() < ENOUGH:
        return
    (factor, correlation), as_stress = (_scale(label[large], one[large]) for one in (model * volumes, model))
    if _near(factor) and (correlation > as_stress[1] or _unit(as_stress[0], STRESS_UNITS) is None):
        what = "virials, in eV: call them virial" if factor < 0 else "stress times volume, in eV: divide by the volume"
        yield Finding("error", f"stresses look like {what}")
        return
    label, model = label[np.isfinite(label)], model[np.isfinite(label)]
    yield from _compare("stresses", label, model, STRESS_UNITS, least=STRESS_LEAST, minus="tension is positive")


def compare_energies(labelled: Sequence[Labelled], predicted: Sequence[Labelled]) -> Iterator[Finding]:
    """Are energies in eV of the whole structure, and on the scale of the model?"""
    known = [(a, b) for a, b in zip(labelled, predicted, strict=True) if a.energy is not None]
    if not known:
        return
    given, model = (np.array([float(one.energy or 0) for one in side]) for side in zip(*known, strict=True))
    n_atoms = np.array([len(one.atoms) for one, _ in known])

    def difference(energies: Floats) -> float:
        """Median, eV/atom."""
        return float(np.median(np.abs(energies - model) / n_atoms))

    now = difference(given)
    guesses = {"eV of one atom": given * n_atoms, "eV with the opposite sign": -given}
    guesses |= {unit: given * size for unit, size in ENERGY_UNITS.items()}
    best = min(guesses, key=lambda guess: difference(guesses[guess]))
    then = difference(guesses[best])
    if now > SHIFTED and then < min(0.3, now / 5):
        text = f"energies look like {best}: taken as that, they are {then:.2g} eV/atom from the model's, else {now:.2g}"
        yield Finding("error", f"{text}. They must be in eV, of the whole structure")
    elif now > SHIFTED:
        yield _explain([one for one, _ in known], [one for _, one in known], now)


def _explain(labelled: Sequence[Labelled], predicted: Sequence[Labelled], now: float) -> Finding:
    """Whether energies of the elements explain why energies differ so much."""
    start = f"energies are {now:.2g} eV/atom from the model's"
    n_elements = len({symbol for one in labelled for symbol in one.atoms.symbols})
    if len(labelled) < 2 * n_elements + 2:  # energies of the elements could explain anything
        return Finding("warning", start)
    found = fit(labelled, predicted)
    if found.after < 0.4 * found.before:
        return Finding(
            "warning",
            f"{start}, {found.after:.2g} with other energies of the elements: another code, functional or correction. "
            "Refit reference energies, or, for 0.3.0 and 0.2.0, apply the MP2020 corrections to the labels",
        )
    return Finding("warning", f"{start}, and energies of the elements do not explain it ({found.after:.2g} with them)")


def _differences(labelled: Sequence[Labelled], predicted: Sequence[Labelled], name: str) -> Finding:
    """How far the model is from the labels, in one sentence."""
    parts = []
    pairs = list(zip(labelled, predicted, strict=True))
    energies = [
        abs(a.energy - b.energy) / len(a.atoms) for a, b in pairs if a.energy is not None and b.energy is not None
    ]
    if energies:
        parts.append(f"energy {1e3 * np.mean(energies):.0f} meV/atom")
    for kind, factor, unit in (("forces", 1e3, "meV/Å"), ("stress", 1 / units.GPa, "GPa"), ("magmoms", 1.0, "μB")):
        label, model = _pairs(labelled, predicted, kind)
        if len(label):
            parts.append(f"{kind} {factor * np.abs(label - model).mean():.3g} {unit}")
    return Finding("note", f"{name} differs from {len(labelled)} of them on average by: {', '.join(parts)}")


def _compare(
    name: str, label: Floats, model: Floats, known_units: dict[str, float], *, least: float, minus: str
) -> Iterator[Finding]:
    """What the factor between labels and predictions says of the unit and the sign."""
    large = _large(model, least)
    if large.sum() < ENOUGH:
        return
    factor, correlation = _scale(label[large], model[large])
    if correlation < FOLLOWS or factor == 0:
        if np.median(np.abs(label[large])) >= least:  # else there is nothing that could follow
            text = f"{name} do not follow the model's (correlation {correlation:.2f}): is the order of atoms the same?"
            yield Finding("warning", text)
        return
    unit = _unit(factor, known_units)
    if unit is None:
        doubt = ": is their sign wrong?" if factor < 0 else ""
        yield Finding("warning", f"{name} are {factor:.3g} times the model's (correlation {correlation:.2f}){doubt}")
        return
    wrong = [f"their sign is wrong: {minus}"] if factor < 0 else []
    if known_units[unit] != 1:
        wrong.append(f"they look like {unit}: multiply by {known_units[unit]:.6g}")
    if wrong:
        text = f"{name} are {factor:.3g} times the model's (correlation {correlation:.2f}); {', and '.join(wrong)}"
        yield Finding("error", text)


def _large(model: Floats, least: float) -> NDArray[np.bool_]:
    """The quarter that is largest, as far as it is larger than the model's usual error."""
    size = np.abs(model)
    return size >= max(least, float(np.percentile(size, 75)) if len(size) else least)


def _scale(label: Floats, model: Floats) -> tuple[float, float]:
    """Typical factor from predictions to labels, and the absolute value of their correlation."""
    # Clipped, so that a few very large ones do not decide.
    a, b = (x.clip(-limit, limit) for x in (label, model) for limit in [5 * float(np.median(np.abs(x)))])
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float(np.median(label / model)), float(abs((a * b).sum())) / norm if norm else 0.0


def _unit(factor: float, known_units: dict[str, float]) -> str | None:
    """The unit that explains the factor, whatever its sign; None if none does."""
    unit = min(known_units, key=lambda unit: abs(np.log(abs(factor) * known_units[unit])) if factor else np.inf)
    return unit if _near(factor * known_units[unit]) else None


def _near(factor: float) -> bool:
    return 1 / NEAR < abs(factor) < NEAR


def _pairs(labelled: Sequence[Labelled], predicted: Sequence[Labelled], name: str) -> tuple[Floats, Floats]:
    """Labels of one kind and predictions of the same, laid end to end, where both are known."""
    known = [(getattr(a, name), getattr(b, name)) for a, b in zip(labelled, predicted, strict=True)]
    known = [(a.ravel(), b.ravel()) for a, b in known if a is not None and b is not None]
    label, model = (np.concatenate([pair[side] for pair in known] or [np.empty(0)]) for side in (0, 1))
    both = np.isfinite(label) & np.isfinite(model)
    return label[both], model[both]
