"""How far a network is from its labels: mean absolute errors, and the pairs of label and prediction behind them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from ase.units import GPa
from numpy.typing import NDArray
from torch import Tensor

from ase_fastchgnet.model.network import Network, NetworkOutput
from ase_fastchgnet.training.config import TrainConfig
from ase_fastchgnet.training.dataset import Batch, GraphDataset, prefetch
from ase_fastchgnet.training.distributed import Ranks
from ase_fastchgnet.training.objective import LossParts, LossWeights, loss

BATCH_ROWS = 20_000  # edges + angles that are evaluated at once

Pairs = NDArray[np.float64]  # (2, n): labels, predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Mean absolute errors over what is known; NaN where nothing is."""

    loss: float  # weighted, what training minimises
    energy: float  # eV/atom
    forces: float  # eV/Å, components
    stress: float  # GPa, components
    magmoms: float  # μ_B

    def to_dict(self) -> dict[str, float | None]:
        """JSON-ready, names with units; None where nothing is known."""
        values = zip(NAMES, asdict(self).values(), strict=True)
        return {name: None if np.isnan(value) else value for name, value in values}


NAMES = ("loss", "energy_mae_eV_per_atom", "force_mae_eV_A", "stress_mae_GPa", "magmom_mae_muB")


class Parity(NamedTuple):
    """Labels against predictions, for plots."""

    energy: Pairs  # eV/atom
    forces: Pairs  # eV/Å, components
    stress: Pairs  # GPa, the six different components
    magmoms: Pairs  # μ_B


def loss_weights(config: TrainConfig) -> LossWeights:
    """The weights of the objective, which has the same names for them as this layer has for predictions."""
    return LossWeights(
        energy=config.energy_weight,
        forces=config.force_weight,
        stress=config.stress_weight,
        magmoms=config.magmom_weight,
    )


def sums_of(parts: LossParts) -> Tensor:
    """(4, 3) float64: losses, absolute errors and numbers of labels, of energies, forces, stresses and magmoms."""
    return torch.stack([torch.stack(part).detach().double() for part in parts[1:]])


def errors_of(sums: Tensor, weights: LossWeights) -> Errors:
    """The means of sums over batches, steps or processes."""
    losses, errors, known = sums.cpu().numpy().T
    factors = np.array([weights.energy, weights.forces, weights.stress, weights.magmoms])
    total = float((factors * losses / np.maximum(known, 1)).sum())
    means = np.divide(errors, known, out=np.full(4, np.nan), where=known > 0).tolist()
    return Errors(loss=total, energy=means[0], forces=means[1], stress=means[2], magmoms=means[3])


def evaluate(network: Network, dataset: GraphDataset, config: TrainConfig, ranks: Ranks) -> Errors:
    """The errors over a dataset, shared out to all processes."""
    weights = loss_weights(config)
    sums = torch.zeros(4, 3, dtype=torch.float64, device=ranks.device)
    for batch, output in _outputs(network, dataset, config, ranks):
        sums += sums_of(loss(output, batch, weights))
    return errors_of(ranks.sum(sums), weights)


def compare(network: Network, dataset: GraphDataset, config: TrainConfig, ranks: Ranks) -> tuple[Errors, Parity]:
    """The errors over a dataset, and every label with its prediction (on the main process; elsewhere some)."""
    weights = loss_weights(config)
    sums = torch.zeros(4, 3, dtype=torch.float64, device=ranks.device)
    found = [[np.empty((2, 0))] for _ in Parity._fields]
    for batch, output in _outputs(network, dataset, config, ranks):
        sums += sums_of(loss(output, batch, weights))
        for pairs, each in zip(found, _pairs(batch, output), strict=True):
            pairs.append(each)
    gathered = ranks.gather([np.concatenate(pairs, axis=1) for pairs in found])
    parity = Parity(*(np.concatenate(parts, axis=1) for parts in zip(*gathered, strict=True)))
    return errors_of(ranks.sum(sums), weights), parity


def _outputs(
    network: Network, dataset: GraphDataset, config: TrainConfig, ranks: Ranks
) -> Iterator[tuple[Batch, NetworkOutput]]:
    """This process's share of the batches and what the network says of them; nothing keeps a graph of operations."""
    network.eval()
    with torch.no_grad():  # the network itself differentiates where it must
        for batch in prefetch(dataset, _batches(dataset)[ranks.rank :: ranks.size], device=ranks.device):
            yield batch, network(batch.graph, forces=config.forces)


def _batches(dataset: GraphDataset) -> list[list[int]]:
    """Numbers of structures in order, in lists of at most BATCH_ROWS edges and angles."""
    batches: list[list[int]] = [[]]
    rows = 0
    for index, size in enumerate(dataset.sizes[:, 1:].sum(1).tolist()):
        if batches[-1] and rows + size > BATCH_ROWS:
            batches.append([])
            rows = 0
        batches[-1].append(index)
        rows += size
    return batches


def _pairs(batch: Batch, output: NetworkOutput) -> Iterator[Pairs]:
    n_atoms = batch.graph.atom_ptr.diff()
    upper = torch.triu_indices(3, 3)
    yield _known(batch.labels.energies / n_atoms, output.energies / n_atoms)
    assert output.forces is not None
    assert output.stress is not None
    yield _known(batch.labels.forces, output.forces)
    yield _known(batch.labels.stress[:, upper[0], upper[1]] / GPa, output.stress[:, upper[0], upper[1]] / GPa)
    yield _known(batch.labels.magmoms, output.magmoms)


def _known(labels: Tensor, predicted: Tensor) -> Pairs:
    known = labels.isfinite()
    pairs: Pairs = torch.stack([labels[known], predicted.detach()[known]]).double().cpu().numpy()
    return pairs
