"""The whole model with every op done by its kernel, in Triton's interpreter, against exact results in float64."""

import gc

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from ase_fastchgnet import FastCHGNet, estimate_memory
from ase_fastchgnet.graph import Cutoffs, DeviceNeighborCache, build_batch
from ase_fastchgnet.graph.device_pairing import Sizes
from ase_fastchgnet.graph.fixed_graph import FixedGraph, capacity_for
from ase_fastchgnet.graph.validate import read_geometry
from ase_fastchgnet.model.checkpoint import load_checkpoint
from ase_fastchgnet.model.engine import Engine
from ase_fastchgnet.model.engine.memory import weight_bytes
from ase_fastchgnet.model.output import ModelOutput
from ase_fastchgnet.model.reference import ReferenceModel
from fastchgnet_kernels._launch import INTERPRETED
from tests.closeness import assert_equal_to_rounding
from tests.conftest import PoisonedMemory
from tests.live_memory import LiveMemory
from tests.model.test_engine_state import tensors_of

# Pre-activations reach ±600. Beyond 128 a power of two is infinite in float32 and the sigmoid 0: as it should be, but
# the numpy behind the interpreter says so.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp2:RuntimeWarning")


def crystals() -> list[Atoms]:
    """Off their equilibrium, so that every component of forces and stress is there; one has no angles."""
    salt = bulk("NaCl", "rocksalt", a=5.6)
    salt.positions[0] += (0.1, 0.05, -0.07)
    lithium = bulk("Li", "bcc", a=3.6)
    lithium.set_cell(lithium.cell.array @ [[1.02, 0.01, 0.0], [0.0, 0.99, 0.02], [0.0, 0.0, 1.0]], scale_atoms=True)
    return [salt, lithium]


def test_energies_forces_and_virials_are_those_of_the_reference() -> None:
    assert INTERPRETED
    checkpoint = load_checkpoint("0.3.0")
    graph = build_batch(crystals(), Cutoffs(checkpoint.config.atom_cutoff, checkpoint.config.bond_cutoff))
    assert graph.n_angles > 0
    found = Engine(checkpoint).evaluate(graph)
    exact = ReferenceModel(checkpoint, dtype=torch.float64).evaluate(graph)
    # The same budgets as for the engine on the CPU in float32.
    for name, budget in [("atom_energies", 3e-6), ("magmoms", 3e-6), ("forces", 3e-5), ("virial", 3e-4)]:
        ours, theirs = getattr(found, name), getattr(exact, name)
        assert theirs.abs().max() > 100 * budget
        assert (ours - theirs).abs().max() < budget, name


def test_tf32_of_the_calculator_reaches_the_kernels() -> None:
    salt, checkpoint = crystals()[0], load_checkpoint("0.3.0")
    graph = build_batch([salt], Cutoffs(checkpoint.config.atom_cutoff, checkpoint.config.bond_cutoff))
    energy = float(Engine(checkpoint, tf32=True).forward(graph).output.atom_energies.sum())
    exact = float(ReferenceModel(checkpoint, dtype=torch.float64).forward(graph).output.atom_energies.sum())
    assert FastCHGNet(tf32=True, device="cpu").get_potential_energy(salt) == energy
    # More than float32 may err in the test above, and 2^13 times what it does err, 1e-7 eV, at most.
    assert 6e-6 < abs(energy - exact) < 1e-3


def test_memory_is_what_is_estimated() -> None:
    """Without the weights, which are most of it here."""
    atoms, checkpoint = molecule("CH4"), load_checkpoint("0.3.0")
    engine = Engine(checkpoint)
    gc.freeze()  # what is there already need not be looked through again and again
    live = LiveMemory(tensors_of(engine.weights), collect=True)
    weights = live.now
    with live:
        graph = DeviceNeighborCache(Cutoffs(checkpoint.config.atom_cutoff, checkpoint.config.bond_cutoff)).graph(atoms)
        assert graph.n_angles > graph.n_edges > 10
        engine.evaluate(graph)
    gc.unfreeze()
    expected = estimate_memory(atoms, device="cpu") - weight_bytes(checkpoint, 4)
    assert 0.95 * (live.peak - weights) < expected < 1.2 * (live.peak - weights)


def test_a_graph_of_fixed_size_gives_the_same_whatever_memory_holds(poisoned_memory: PoisonedMemory) -> None:
    atoms, checkpoint = crystals()[0], load_checkpoint("0.3.0")
    cutoffs = Cutoffs(checkpoint.config.atom_cutoff, checkpoint.config.bond_cutoff)
    cache = DeviceNeighborCache(cutoffs)
    graph = cache.graph(atoms)
    assert cache.reference is not None
    n_candidates = cache.reference.candidates.n_bonds
    capacity = capacity_for(n_candidates, Sizes(graph.n_bonds, len(graph.short_bonds), graph.n_angles))
    engine, now = Engine(checkpoint, dtype=torch.float64), read_geometry(atoms, 0)

    def evaluate() -> ModelOutput:
        fixed = FixedGraph(cutoffs, now, capacity, torch.device("cpu"))
        fixed.load(cache.reference.candidates)
        fixed.place(now)
        return engine.evaluate(fixed.graph(fixed.choose()[0]))

    found, exact = poisoned_memory.run(evaluate), ReferenceModel(checkpoint, dtype=torch.float64).evaluate(graph)
    for name, rows in [("atom_energies", 2), ("magmoms", 2), ("forces", 2), ("virial", 1)]:
        assert_equal_to_rounding(getattr(found, name)[:rows], getattr(exact, name), scale=1.0, what=name)
