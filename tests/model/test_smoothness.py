"""Energy and forces are smooth where a pair comes into reach or a bond becomes short, and where atoms part for good."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from ase_fastchgnet import evaluate, load_checkpoint
from ase_fastchgnet.graph import Cutoffs, build_batch
from ase_fastchgnet.model import reference
from ase_fastchgnet.model.engine import Engine
from tests.model.backends import MODELS, Model
from tests.stock import stock_predict

# An atom on the x axis comes close to the first of three bonded atoms; the other two hold angles at any distance.
CLUSTERS = ["OHHLi", "OHHH", "MnOOO"]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return Model(load_checkpoint(request.param))


def cluster(symbols: str, distance: float) -> Atoms:
    return Atoms(symbols, [[0, 0, 0], [-0.6, 0.8, 0], [-0.6, -0.5, 0.7], [distance, 0, 0]])


def energy_and_forces(model: Model, atoms: Atoms, cutoffs: Cutoffs | None = None) -> tuple[float, np.ndarray]:
    output = model.engine.evaluate(build_batch([atoms], cutoffs or model.cutoffs))
    return float(output.atom_energies.sum()), output.forces.numpy()


@pytest.mark.parametrize("which", ["atom", "bond"])
@pytest.mark.parametrize("symbols", CLUSTERS)
def test_what_a_pair_at_a_cutoff_adds_is_of_third_order_in_the_energy_and_second_in_forces(
    model: Model, symbols: str, which: str
) -> None:
    """So energy, force and its slope are continuous: the envelope (1 - r/c)³ multiplies all that a pair does.

    What it adds, at δ from the cut-off, is told by a graph without it, whose own cut-off is a little shorter. From
    δ = 0.01 to 0.0025 Å it falls by 4³ and 4², or more; by 4 if a slope jumped, not at all if a value did.
    """
    energies, forces = [], []
    for delta in (1e-2, 2.5e-3):
        distance = getattr(model.cutoffs, which) - delta
        atoms = cluster(symbols, distance)
        e, f = energy_and_forces(model, atoms)
        e0, f0 = energy_and_forces(model, atoms, replace(model.cutoffs, **{which: distance - 1e-9}))
        energies.append(abs(e - e0))
        forces.append(np.abs(f - f0).max())
    assert energies[0] > 1e-10  # the pair does add something, 1000 times as much as rounding
    # The next order is δ times 10/Å or less: it moves these by 0.1 at most.
    assert np.log(energies[0] / energies[1]) / np.log(4) >= 2.9
    assert np.log(forces[0] / forces[1]) / np.log(4) >= 1.9


def test_the_work_done_on_an_atom_pulled_out_of_reach_is_the_energy(model: Model) -> None:
    """From 0.1 Å within to 0.1 Å beyond the cut-off of each of its three bonds in turn, in steps of 1 and 2 mÅ.

    A jump of the energy would be missing from the work, whatever the step. The trapezoidal rule errs by h²/12 times
    the change of the force's slope; Richardson's step from h to h/2 takes that out and leaves h³ and less.
    """
    fixed = molecule("H2O")
    start, end = model.cutoffs.atom - 0.1, model.cutoffs.atom + 1.0  # the farther hydrogen leaves last
    x = np.linspace(start, end, 1101)
    path = [fixed + Atoms("Li", [[0.1, distance, 0.2]]) for distance in x]
    found = evaluate(path, model.checkpoint, dtype="float64", on_isolated_atoms="ignore")
    energy, force = np.array([p.energy for p in found]), np.array([p.forces[-1, 1] for p in found])
    assert abs(energy[0] - energy[-1]) > 1e-4
    assert (force[-20:] == 0).all()
    assert np.ptp(energy[-20:]) <= 1e-13  # rounding depends on the place in the batch
    fine, coarse = -np.trapezoid(force, x), -np.trapezoid(force[::2], x[::2])
    assert energy[-1] - energy[0] == pytest.approx(fine + (fine - coarse) / 3, abs=1e-9)
    # The force has no jump either: its largest change in a step halves with the step.
    steps = [np.abs(np.diff(force[::n])).max() for n in (2, 1)]
    assert steps[1] / steps[0] == pytest.approx(0.5, abs=0.05)


def test_only_0_2_0_jumps_where_its_first_angle_appears_and_so_does_stock() -> None:
    """Its BondConv has a bias that is skipped where there is no angle (chgnet issue 79): a flaw of the model."""
    gap = 2e-7
    below, above = (Atoms("OMnO", [[1.9, 0, 0], [0, 0, 0], [0, 3 + d, 0]]) for d in (-gap / 2, gap / 2))

    def jump(name: str) -> float:
        """What the work done on the atom does not account for."""
        one, other = evaluate([below, above], name, dtype="float64")
        return other.energy - one.energy + gap * (one.forces[2, 1] + other.forces[2, 1]) / 2

    assert abs(jump("0.2.0")) > 1e-3
    assert abs(jump("0.3.0")) < 1e-12
    assert abs(jump("r2scan")) < 1e-12
    stock = stock_predict(above, "0.2.0")["energy"] - stock_predict(below, "0.2.0")["energy"]
    assert jump("0.2.0") == pytest.approx(stock, abs=10 * gap)  # forces are below 10 eV/Å


@pytest.mark.parametrize("symbol", ["H", "Li", "Mn", "Pu"])
def test_a_lone_atom_has_the_energy_of_its_embedding(model: Model, symbol: str) -> None:
    """No message reaches it: only the biases of 0.2.0 act on its embedding, then the readout. No force, no virial."""
    p, atoms = model.checkpoint.parameters, Atoms(symbol)
    features = p.embedding[atoms.numbers - 1]
    before = features
    for conv in p.atom_convs:
        before, features = features, features if conv.out.bias is None else features + conv.out.bias
    normed = features if p.readout_norm is None else reference.normalise(features, p.readout_norm)
    energy = reference.read_out(normed, p.readout) + p.reference_energies[atoms.numbers - 1]
    for cell in (None, [20, 20, 20]):
        found = model.engine.evaluate(model.graph(Atoms(symbol, cell=cell, pbc=cell is not None)))
        assert float(found.atom_energies) == pytest.approx(float(energy), abs=1e-12)
        assert float(found.magmoms) == pytest.approx(abs(float(reference.apply(before, p.site_wise))), abs=1e-12)
        assert not found.forces.any()
        assert not found.virial.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_atoms_out_of_reach_are_two_lone_atoms_to_the_last_bit(model: Model, dtype: torch.dtype) -> None:
    """At the cut-off too: an edge is shorter than it, strictly."""
    engine = Engine(model.checkpoint, dtype=dtype)
    lone = engine.evaluate(model.graph(Atoms("Li"), Atoms("O")))
    for distance in (model.cutoffs.atom, model.cutoffs.atom + 0.1, 100.0):
        pair = engine.evaluate(model.graph(Atoms("LiO", [[0, 0, 0], [distance, 0, 0]])))
        assert torch.equal(pair.atom_energies, lone.atom_energies)
        assert not pair.forces.any()


def test_two_atoms_part_smoothly(model: Model) -> None:
    """As δ³ and δ², where δ is what is left to the cut-off: by 8 and 4 when it halves."""
    lone = model.engine.evaluate(model.graph(Atoms("Li"), Atoms("O"))).atom_energies.sum()
    energies, forces = [], []
    for delta in (4e-3, 2e-3):
        e, f = energy_and_forces(model, Atoms("LiO", [[0, 0, 0], [model.cutoffs.atom - delta, 0, 0]]))
        energies.append(abs(e - float(lone)))
        forces.append(np.abs(f).max())
    assert energies[0] > 1e-10
    assert energies[1] <= 1.1 / 8 * energies[0]
    assert forces[1] <= 1.1 / 4 * forces[0]
