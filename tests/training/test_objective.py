"""The loss: stock's where all is known, blind to what is not, and exact over several processes."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from ase_fastchgnet.graph import Cutoffs, build_batch, concatenate
from ase_fastchgnet.model.network import NetworkOutput
from ase_fastchgnet.training.dataset import Batch, Labels
from ase_fastchgnet.training.objective import LossParts, LossWeights, label_counts, loss
from tests.stock import GPA
from tests.structures import STRUCTURES

NAMES = ("Fe bcc, one atom", "NaCl", "SrTiO3", "LiMnO2")
KINDS = ("energies", "forces", "stress", "magmoms")  # in the order of counts
UNITS = {"energies": 1.0, "forces": 1.0, "stress": GPA, "magmoms": 1.0}  # of stock, in ours


def make_output(batch: Batch, seed: int = 1) -> NetworkOutput:
    """Random, off the labels by less and by more than where Huber losses change; leaves."""
    random = torch.Generator().manual_seed(seed)
    labels = batch.labels._asdict()

    def near(kind: str, spread: float) -> Tensor:
        known = labels[kind].nan_to_num(0.0)
        moved: Tensor = known + spread * torch.randn(known.shape, generator=random, dtype=torch.float64)
        return moved.requires_grad_()

    return NetworkOutput(near("energies", 0.5), near("magmoms", 0.2), near("forces", 0.2), near("stress", 0.2 / GPA))


def make_batch(*names: str, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    graph = build_batch([STRUCTURES[name] for name in names], Cutoffs())

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    n, atoms = graph.n_systems, graph.n_atoms
    return Batch(graph, Labels(10 * normal(n), normal(atoms, 3), normal(n, 3, 3) / GPA, normal(atoms).abs()))


def some_unknown(batch: Batch) -> Batch:
    """No energy of the first, no magnetic moments of the last, no stress of the second, holes in the forces."""
    energies, forces, stress, magmoms = (x.clone() for x in batch.labels)
    energies[0] = torch.nan
    forces[1] = forces[-1, 2] = torch.nan
    stress[1] = torch.nan
    magmoms[int(batch.graph.atom_ptr[-2]) :] = torch.nan
    return batch._replace(labels=Labels(energies, forces, stress, magmoms))


def gradients(parts: LossParts, output: NetworkOutput) -> NetworkOutput:
    """Of the loss, with respect to what was predicted."""
    return NetworkOutput(*torch.autograd.grad(parts.total, output, retain_graph=True))  # type: ignore[arg-type]


def assert_all_close(found: NetworkOutput, expected: NetworkOutput) -> None:
    """Sums of at most 72 terms, in another order: 72 roundings of 1e-16 of the largest."""
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14 * float(b.abs().max()))


def stock_loss(output: NetworkOutput, batch: Batch, weights: LossWeights) -> dict[str, Tensor]:
    from chgnet.trainer.trainer import CombinedLoss

    atoms, n_atoms = [slice(*ends) for ends in pairwise(batch.graph.atom_ptr.tolist())], batch.graph.atom_ptr.diff()

    def in_stocks_form(x: NetworkOutput | Labels) -> dict[str, Tensor | list[Tensor]]:
        assert x.forces is not None
        assert x.stress is not None
        return {
            "e": x.energies / n_atoms,
            "f": [x.forces[one] for one in atoms],
            "s": list(x.stress * GPA),
            "m": [x.magmoms[one] for one in atoms],
        }

    criterion = CombinedLoss(
        target_str="efsm",
        criterion="Huber",
        energy_loss_ratio=weights.energy,
        force_loss_ratio=weights.forces,
        stress_loss_ratio=weights.stress,
        mag_loss_ratio=weights.magmoms,
        delta=weights.energy_delta,
    )
    found: dict[str, Tensor] = criterion(in_stocks_form(batch.labels), in_stocks_form(output))
    return found


@pytest.mark.parametrize("weights", [LossWeights(), LossWeights(energy=2.0, forces=0.5, stress=0.3, magmoms=1.5)])
@pytest.mark.parametrize("complete", [True, False], ids=["all known", "some unknown"])
def test_loss_errors_and_gradients_are_those_of_stock(complete: bool, weights: LossWeights) -> None:
    """To 1e-8: stock's GPa is that of ASE but for 5e-10."""
    batch = make_batch(*NAMES) if complete else some_unknown(make_batch(*NAMES))
    output = make_output(batch)
    found, expected = loss(output, batch, weights), stock_loss(output, batch, weights)
    torch.testing.assert_close(found.total, expected["loss"], rtol=1e-8, atol=0)
    for name, part in zip("efsm", (found.energy, found.forces, found.stress, found.magmoms), strict=True):
        torch.testing.assert_close(part.mean(), expected[f"{name}_MAE"], rtol=1e-8, atol=0)
    theirs = torch.autograd.grad(expected["loss"], output)
    for a, b in zip(gradients(found, output), theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_huber_loss_goes_over_from_square_to_linear_at_its_delta(kind: str) -> None:
    """Errors of half and of twice delta: δ²/8 and δ (2δ - δ/2), each kind with a delta and a weight of its own."""
    name = {"energies": "energy"}.get(kind, kind)
    delta, weight = 0.3, 0.7
    silent = dict.fromkeys(("energy", "forces", "stress", "magmoms"), 0.0)
    weights = LossWeights(**(silent | {name: weight, f"{name}_delta": delta}))
    batch = make_batch("Fe bcc, one atom")  # one atom: energies are per atom
    label = getattr(batch.labels, kind)
    for error, expected in ((delta / 2, delta**2 / 8), (2 * delta, 1.5 * delta**2), (-2 * delta, 1.5 * delta**2)):
        exact = NetworkOutput(batch.labels.energies, batch.labels.magmoms, batch.labels.forces, batch.labels.stress)
        total = loss(exact._replace(**{kind: label + error / UNITS[kind]}), batch, weights).total
        torch.testing.assert_close(total, torch.tensor(weight * expected, dtype=torch.float64), rtol=1e-8, atol=0)


def test_energies_count_per_atom_and_equally_whatever_the_size() -> None:
    batch = make_batch("NaCl", "LiMnO2")
    exact = NetworkOutput(batch.labels.energies, batch.labels.magmoms, batch.labels.forces, batch.labels.stress)
    off = exact._replace(energies=batch.labels.energies + 0.02 * batch.graph.atom_ptr.diff())
    found = loss(off, batch, LossWeights())
    torch.testing.assert_close(found.energy.mean(), torch.tensor(0.02, dtype=torch.float64))
    torch.testing.assert_close(found.total, torch.tensor(0.02**2 / 2, dtype=torch.float64))


def test_what_is_not_known_has_no_say() -> None:
    """Neither does the NaN reach a gradient nor the prediction in its place the loss."""
    batch = some_unknown(make_batch(*NAMES))
    output = make_output(batch)
    found = loss(output, batch, LossWeights())
    grad = gradients(found, output)
    changed = {}
    for kind, x in batch.labels._asdict().items():
        g, unknown = getattr(grad, kind), x.isnan()
        assert unknown.any(), kind
        assert (g[unknown] == 0).all(), kind
        assert (g[~unknown] != 0).all(), kind
        changed[kind] = torch.where(unknown, 1e6, getattr(output, kind).detach())
    again = loss(NetworkOutput(**changed), batch, LossWeights())
    assert torch.equal(again.total, found.total.detach())
    assert torch.equal(torch.stack([part.known for part in found[1:]]), label_counts(batch.labels))


def test_means_are_over_what_is_known() -> None:
    """Against the plain mean of what is left after leaving the rest out."""
    batch = some_unknown(make_batch(*NAMES))
    output = make_output(batch)
    found = loss(output, batch, LossWeights())
    known = batch.labels.forces.isfinite()
    expected = huber_loss(output.forces[known], batch.labels.forces[known], delta=0.1)  # type: ignore[index]
    torch.testing.assert_close(found.forces.loss / found.forces.known, expected)
    assert label_counts(batch.labels).tolist() == [3, 3 * batch.graph.n_atoms - 4, 27, batch.graph.n_atoms - 8]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_any_label_of_a_kind_is_one_without_its_loss(kind: str) -> None:
    batch = make_batch(*NAMES)
    nothing = torch.full_like(getattr(batch.labels, kind), torch.nan)
    bare = batch._replace(labels=batch.labels._replace(**{kind: nothing}))
    output = make_output(batch)
    name = {"energies": "energy"}.get(kind, kind)
    found, expected = loss(output, bare, LossWeights()), loss(output, batch, LossWeights(**{name: 0.0}))
    torch.testing.assert_close(found.total, expected.total)
    assert_all_close(gradients(found, output), gradients(expected, output))
    assert getattr(found, name).mean().isnan()


def test_a_batch_without_labels_has_no_loss_and_gradients_of_zero() -> None:
    """Not none: processes that average gradients wait for those of all."""
    batch = make_batch(*NAMES)
    bare = batch._replace(labels=Labels(*(torch.full_like(x, torch.nan) for x in batch.labels)))
    output = make_output(batch)
    for counts in (None, torch.tensor([3.0, 30.0, 0.0, 5.0], dtype=torch.float64)):
        found = loss(output, bare, LossWeights(), counts=counts)
        assert found.total == 0
        assert all((g == 0).all() for g in gradients(found, output))


def test_without_forces_energies_and_magnetic_moments_are_compared() -> None:
    batch = make_batch(*NAMES)
    output = make_output(batch)
    found = loss(output._replace(forces=None, stress=None), batch, LossWeights())
    expected = loss(output, batch, LossWeights(forces=0.0, stress=0.0))
    torch.testing.assert_close(found.total, expected.total)
    assert found.forces.known == found.stress.known == 0


@pytest.mark.parametrize("shares", [[NAMES[:1], NAMES[1:]], [NAMES[:2], NAMES[2:3], NAMES[3:]]], ids=["2", "3"])
def test_gradients_averaged_over_processes_are_those_of_one_with_all_the_data(shares: list[tuple[str, ...]]) -> None:
    """However unequal the shares, and though one of them has no energy, and one no magnetic moments, at all."""
    batches = [make_batch(*names, seed=seed) for seed, names in enumerate(shares)]
    batches[0].labels.energies[:] = torch.nan
    batches[-1].labels.magmoms[:] = torch.nan
    outputs = [make_output(batch, seed) for seed, batch in enumerate(batches)]
    counts = torch.stack([label_counts(batch.labels) for batch in batches]).sum(0) / len(batches)
    parts = [loss(output, batch, LossWeights(), counts=counts) for output, batch in zip(outputs, batches, strict=True)]
    whole = Batch(
        concatenate([batch.graph for batch in batches]),
        Labels(*map(torch.cat, zip(*(batch.labels for batch in batches), strict=True))),
    )
    together = NetworkOutput(*(torch.cat(x).detach().requires_grad_() for x in zip(*outputs, strict=True)))
    expected = loss(together, whole, LossWeights())
    each = [gradients(part, output) for part, output in zip(parts, outputs, strict=True)]
    # Different processes have different predictions: averaging concerns what the weights have in common, a factor 1/n.
    averaged = NetworkOutput(*(torch.cat(x) / len(batches) for x in zip(*each, strict=True)))
    assert_all_close(averaged, gradients(expected, together))
    torch.testing.assert_close(torch.stack([part.total for part in parts]).mean(), expected.total)
    for name in ("energy", "forces", "stress", "magmoms"):
        for a, b in zip(
            map(sum, zip(*(getattr(part, name) for part in parts), strict=True)), getattr(expected, name), strict=True
        ):
            torch.testing.assert_close(a, b)


def test_errors_are_not_differentiated() -> None:
    batch = make_batch("NaCl")
    found = loss(make_output(batch), batch, LossWeights())
    assert found.total.requires_grad
    assert not any(part.error.requires_grad or part.known.requires_grad for part in found[1:])
