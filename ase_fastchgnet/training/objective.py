"""What training minimises: Huber losses of energy per atom, forces, stress and magnetic moments, weighted and added.

Labels that are not known are NaN and count for nothing.  Each loss is a mean over what is known of its kind (systems,
components of forces, components of stress, atoms), so it is kept as a sum and a count: over several processes, sums and
counts add up where means do not.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from ase.units import GPa
from torch import Tensor
from torch.nn.functional import huber_loss

from ase_fastchgnet.model.network import NetworkOutput

if TYPE_CHECKING:
    from ase_fastchgnet.training.dataset import Batch, Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """Weight of each mean loss, and the error at which its Huber loss goes over from square to linear.

    The defaults are those of stock chgnet's Trainer, which also takes energies in eV/atom, forces in eV/Å, stress in
    GPa and magnetic moments in μ_B.
    """

    energy: float = 1.0
    forces: float = 1.0
    stress: float = 0.1
    magmoms: float = 0.1
    energy_delta: float = 0.1  # eV/atom
    forces_delta: float = 0.1  # eV/Å
    stress_delta: float = 0.1  # GPa
    magmoms_delta: float = 0.1  # μ_B


class Part(NamedTuple):
    """What one kind of label adds: sums over the known ones of this batch, each ()."""

    loss: Tensor  # Σ Huber loss, not weighted
    error: Tensor  # Σ |error|, detached, in the unit of the loss
    known: Tensor  # how many those are, float64

    def mean(self) -> Tensor:
        """Mean absolute error; NaN where nothing is known."""
        return self.error / self.known


class LossParts(NamedTuple):
    total: Tensor  # (), to be differentiated
    energy: Part  # eV/atom
    forces: Part  # eV/Å
    stress: Part  # GPa
    magmoms: Part  # μ_B


def loss(output: NetworkOutput, batch: "Batch", weights: LossWeights, *, counts: Tensor | None = None) -> LossParts:
    """The loss of a batch, and its parts.

    `counts` (4,) is what the sums are divided by, in the order energy, forces, stress, magmoms; None is how many labels
    this batch has of each.  One of several processes whose gradients are averaged afterwards passes the counts of all
    of them together (the sum of their `label_counts`) divided by the number of processes: then the average is the
    gradient of a single process with all the data.
    """
    labels, n_atoms = batch.labels, batch.graph.atom_ptr.diff()
    parts = (
        _part(output.energies / n_atoms, labels.energies / n_atoms, weights.energy_delta),
        _part(output.forces, labels.forces, weights.forces_delta),
        _part(None if output.stress is None else output.stress / GPa, labels.stress / GPa, weights.stress_delta),
        _part(output.magmoms, labels.magmoms, weights.magmoms_delta),
    )
    if counts is None:
        counts = torch.stack([part.known for part in parts])
    factors = (weights.energy, weights.forces, weights.stress, weights.magmoms)
    # A kind of which nothing is known anywhere has a sum of zero, whatever it is divided by.
    means = [part.loss / count for part, count in zip(parts, counts.clamp(min=1e-9).unbind(), strict=True)]
    total = torch.stack([factor * mean for factor, mean in zip(factors, means, strict=True)]).sum()
    return LossParts(total, *parts)


def label_counts(labels: "Labels") -> Tensor:
    """How many labels are known: energies, components of forces, components of stress, magmoms; (4,) float64."""
    known = (labels.energies, labels.forces, labels.stress, labels.magmoms)
    return torch.stack([x.isfinite().sum() for x in known]).double()


def _part(predicted: Tensor | None, labels: Tensor, delta: float) -> Part:
    """Sums over the labels that are known; none is, where nothing was predicted."""
    if predicted is None:
        nothing = labels.new_zeros((), dtype=torch.float64)
        return Part(nothing, nothing, nothing)
    known = labels.isfinite()
    # The prediction in place of an unknown label: neither the loss nor its gradient ever meets the NaN.
    labels = torch.where(known, labels.to(predicted.dtype), predicted.detach())
    return Part(
        loss=huber_loss(predicted, labels, reduction="sum", delta=delta),
        error=(predicted.detach() - labels).abs().sum(),
        known=known.sum().double(),
    )
