"""Energies of the elements, fitted to labels: what other settings of DFT change most, and training learns worst.

The model's energy is a sum over atoms of the network's part and of the reference energy of the element.  The shifts δ
of the latter are fitted to the differences d (eV/atom) between labels and predictions, with x the shares of elements:

    min over δ of  Σ w (d - x·δ)² + λ |δ|²,    λ = (spread of what is left)² / (size of the differences)²

λ says how little data is too little: an element is left where it is as far as the noise of its few structures is as
large as the shift that they ask for.  w takes influence from outliers (Huber).
"""

import hashlib
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_fastchgnet.model.checkpoint import Checkpoint
from ase_fastchgnet.training.labels import Labelled
from ase_fastchgnet.training.predict import predict

Floats = NDArray[np.float64]

N_ELEMENTS = 94
ENOUGH = 100  # structures with an element; more would not change its energy
NOISE = 0.03  # eV/atom, CHGNet's own error; where there are too few structures to see a spread
LEAST_NOISE = 1e-4  # eV/atom
LEAST_SAID = 5e-4  # eV
SURE = 0.9  # share of a shift that the data decide, above which nothing need be said
GAUSSIAN = 1.4826  # standard deviation of what is Gaussian over its median absolute value
ROUNDS = 30  # of finding outliers; it converges in a few


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReferenceFit:
    """Shifts of the elements' energies, and how good they are."""

    shifts: Floats  # (94,) eV, entry Z - 1; zero for elements that are not in the data
    determined: Floats  # (94,) from 0, as before, to 1, decided by the data alone
    structures: int  # that it was fitted to
    before: float  # eV/atom, mean absolute difference between labels and predictions
    after: float  # the same with the shifts

    def apply(self, checkpoint: Checkpoint) -> Checkpoint:
        """The same model with shifted energies of the elements."""
        old = checkpoint.parameters.reference_energies
        new = old + torch.from_numpy(self.shifts).to(old)
        # Models with one name and one hash are taken for the same one, so this one needs its own.
        digest = hashlib.sha256(checkpoint.sha256.encode() + new.numpy().tobytes())
        parameters = replace(checkpoint.parameters, reference_energies=new)
        return replace(checkpoint, parameters=parameters, sha256=digest.hexdigest())

    def __str__(self) -> str:
        """What changed, element by element; what has not to three decimals is left out."""
        present = [i for i in np.flatnonzero(self.determined).tolist() if abs(self.shifts[i]) >= LEAST_SAID]
        sure = [f"{_symbol(i)} {self.shifts[i]:+.3f}" for i in present if self.determined[i] >= SURE]
        few = [
            f"{_symbol(i)} {self.shifts[i]:+.3f} ({self.determined[i]:.0%})"
            for i in present
            if self.determined[i] < SURE
        ]
        lines = [
            f"reference energies fitted to {self.structures} structures: mean error of energies "
            f"{1e3 * self.before:.1f} → {1e3 * self.after:.1f} meV/atom"
        ]
        for title, entries in [("eV: ", sure), ("of few data, which decide so much of it: ", few)]:
            if entries:
                text = title + ", ".join(entries)
                lines.append(textwrap.fill(text, 110, initial_indent="  ", subsequent_indent="    "))
        return "\n".join(lines)


def refit(labelled: Sequence[Labelled], checkpoint: Checkpoint, *, device: torch.device | str = "cpu") -> ReferenceFit:
    """The energies of the elements that suit the labels best, the rest of the model left as it is.

    Of very many structures, so many are used that each element is in ENOUGH of them.  ValueError if no energy is known.
    """
    chosen = _enough_of_each(labelled)
    if not chosen:
        raise ValueError("reference energies cannot be fitted: no energy is known of any structure")
    predicted = predict([one.atoms for one in chosen], checkpoint, gradient=False, device=device)
    return fit(chosen, predicted)


def fit(labelled: Sequence[Labelled], predicted: Sequence[Labelled]) -> ReferenceFit:
    """The same, where predictions are at hand; energies must be known."""
    shares = np.array([composition(one) for one in labelled])
    pairs = zip(labelled, predicted, strict=True)
    differences = np.array([(float(a.energy or 0) - float(b.energy or 0)) / len(a.atoms) for a, b in pairs])
    shifts, determined = element_shifts(shares, differences)
    return ReferenceFit(
        shifts=shifts,
        determined=determined,
        structures=len(labelled),
        before=float(np.abs(differences).mean()),
        after=float(np.abs(differences - shares @ shifts).mean()),
    )


def _symbol(index: int) -> str:
    return str(chemical_symbols[index + 1])


def composition(one: Labelled) -> Floats:
    """Share of each element (94,)."""
    counts = np.bincount(one.atoms.numbers - 1, minlength=N_ELEMENTS)[:N_ELEMENTS]
    return counts.astype(np.float64) / len(one.atoms)


def element_shifts(shares: Floats, differences: Floats) -> tuple[Floats, Floats]:
    """Shifts (94,) eV and how far each is determined (94,), of shares (n, 94) and differences (n,) eV/atom."""
    present = np.flatnonzero(shares.any(axis=0))
    x = shares[:, present]
    weights = np.ones(len(x))
    for _ in range(ROUNDS):
        information, delta, ridge = _solve(x, differences, weights)
        left = np.abs(differences - x @ delta)
        limit = max(2 * GAUSSIAN * float(np.median(left)), LEAST_NOISE)
        updated = np.minimum(1.0, limit / np.maximum(left, limit))
        if np.abs(updated - weights).max() < 1e-4:
            break
        weights = updated
    shifts, determined = np.zeros(shares.shape[1]), np.zeros(shares.shape[1])
    shifts[present] = delta
    regular = information + ridge * np.eye(len(present))
    determined[present] = np.diag(np.linalg.solve(regular, information)).clip(0, 1)
    return shifts, determined


def _solve(x: Floats, differences: Floats, weights: Floats) -> tuple[Floats, Floats, float]:
    """Information matrix, shifts and λ for these weights."""
    root = np.sqrt(weights)
    free, _, rank, _ = np.linalg.lstsq(x * root[:, None], differences * root, rcond=1e-8)
    spare = len(x) - rank
    noise = NOISE
    if spare >= 1:
        left = GAUSSIAN * float(np.median(np.abs(differences - x @ free)))
        noise = max(left * float(np.sqrt(len(x) / spare)), LEAST_NOISE)
    size = float((weights * differences**2).sum() / weights.sum())
    ridge = noise**2 / max(size, LEAST_NOISE**2)
    information = x.T @ (weights[:, None] * x)
    delta = np.linalg.solve(information + ridge * np.eye(x.shape[1]), x.T @ (weights * differences))
    return information, delta.astype(np.float64), ridge


def _enough_of_each(labelled: Sequence[Labelled]) -> list[Labelled]:
    """Structures with energies, in a random order: all, or so many that every element is in ENOUGH of them."""
    seen = np.zeros(N_ELEMENTS, dtype=np.int64)
    chosen = []
    for number in np.random.default_rng(0).permutation(len(labelled)).tolist():
        one = labelled[number]
        elements = np.unique(one.atoms.numbers) - 1
        if one.energy is not None and (seen[elements] < ENOUGH).any():
            seen[elements] += 1
            chosen.append(one)
    return chosen
