"""A choice of bonds that reaches beyond the cut-offs serves several recorded steps, but none for which it lacks one."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from structures import STRUCTURES
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ase_fastchgnet import FastCHGNet
from ase_fastchgnet.evaluation import captured
from ase_fastchgnet.evaluation.backend import Backend
from ase_fastchgnet.evaluation.captured import CapturedStep
from ase_fastchgnet.evaluation.source import load_weights
from ase_fastchgnet.graph import Cutoffs, DeviceNeighborCache
from ase_fastchgnet.graph.fixed_graph import FixedGraph, capacity_for, sizes_within
from ase_fastchgnet.model.engine import Engine
from fastchgnet_kernels import _launch
from tests.evaluation.recorded import Steps, assert_as_if_alone, calc, walk


def test_bonds_are_chosen_anew_only_when_atoms_have_moved_by_half_the_hold(steps: Steps) -> None:
    atoms, rng = STRUCTURES["LiMnO2"].copy(), np.random.default_rng(4)
    atoms.calc = calc()
    walk(atoms, captured.PATIENCE + 1, scale=0.001)
    assert steps.chosen == 1
    start = atoms.positions.copy()
    for _ in range(4):
        atoms.positions = start + rng.uniform(-0.4, 0.4, size=start.shape) * captured.HOLD / np.sqrt(3)
        walk(atoms, 1, scale=0.001)
    assert steps.chosen == 1
    atoms.positions[0] += captured.HOLD  # less than the skin, so that nothing is searched
    walk(atoms, 1, scale=0.001)
    assert steps.chosen == 2
    assert steps.played == 6


def test_where_layers_have_a_bias_they_are_chosen_at_every_step(steps: Steps) -> None:
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.calc = FastCHGNet("0.2.0", device="cpu", dtype="float64")
    for _ in range(6):
        atoms.rattle(0.001, rng=np.random.default_rng(5))
        atoms.get_forces()
        fresh = FastCHGNet("0.2.0", device="cpu", dtype="float64").get_forces(atoms)
        assert np.abs(atoms.get_forces() - fresh).max() < 1e-12
    assert steps.played == steps.chosen == 6 - captured.PATIENCE


def test_so_they_are_in_systems_of_which_more_bonds_would_take_longer(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "HELD_ROWS", 1000)
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.calc = calc()
    walk(atoms, 6, scale=0.001)
    assert steps.played == steps.chosen == 6 - captured.PATIENCE


def test_with_biases_an_expanding_crystal_loses_its_angles_when_a_fresh_graph_does(steps: Steps) -> None:
    """bcc Li has angles up to a lattice constant of 3.46 Å, and 0.2.0 an energy that jumps there by 0.2 eV."""
    atoms = Atoms("Li", cell=3.40 / 2 * (1 - 2 * np.eye(3)), pbc=True)
    cell = atoms.cell.array.copy()
    atoms.calc = FastCHGNet("0.2.0", device="cpu", dtype="float64")
    for factor in np.linspace(0.95, 1.05, 11):
        atoms.set_cell(cell * factor, scale_atoms=True)
        atoms.get_forces()
        fresh = FastCHGNet("0.2.0", device="cpu", dtype="float64").get_potential_energy(atoms)
        assert atoms.get_potential_energy() == pytest.approx(fresh, abs=1e-10)
    assert steps.played == steps.chosen > 4


@pytest.mark.parametrize("stretched", [[8, 8, 7], [8, 8, 6.2]])
def test_an_atom_that_a_stretch_of_the_cell_isolates_is_refused_as_ever(stretched: list[float], steps: Steps) -> None:
    atoms = Atoms("Ar", cell=[8, 8, 5], pbc=[False, False, True])
    atoms.calc = calc(on_isolated_atoms="error")
    for _ in range(6):
        atoms.positions += 0.001
        atoms.get_forces()
    assert steps.played > 0
    atoms.set_cell(stretched, scale_atoms=True)
    with pytest.raises(ValueError, match="atom 0 has no neighbour"):
        atoms.get_forces()


def test_after_a_search_bonds_are_chosen_from_its_candidates(steps: Steps) -> None:
    """The skin is smaller than the hold, so that searches come while a choice would serve."""
    atoms, rng = STRUCTURES["LiMnO2"].copy(), np.random.default_rng(8)
    atoms.calc = calc(skin=0.05)
    drift = rng.normal(size=atoms.positions.shape)
    drift *= 0.012 / np.linalg.norm(drift, axis=1, keepdims=True)
    for _ in range(40):
        atoms.positions += drift
        atoms.get_forces()
        assert_as_if_alone(atoms)
    assert atoms.calc._cache.builds > 10
    assert steps.played > 10


def test_atoms_that_come_too_close_while_a_choice_serves_are_refused_as_ever(steps: Steps) -> None:
    atoms = Atoms("H2O", positions=[[0, 0, 0], [0.15, 0, 0], [0, 1, 0]], cell=[8, 8, 8], pbc=True)
    atoms.calc = calc()
    walk(atoms, 6, scale=1e-4)
    chosen = steps.chosen
    atoms.positions[:2] = [[0.07, 0, 0], [0.075, 0, 0]]
    with pytest.raises(ValueError, match="closer than"):
        atoms.get_forces()
    assert steps.chosen == chosen


def test_cutoffs_that_nearly_meet_leave_no_room_for_a_hold(steps: Steps) -> None:
    checkpoint = load_weights("0.3.0", "conservative")
    near = replace(checkpoint, config=replace(checkpoint.config, atom_cutoff=4.0, bond_cutoff=3.9))
    atoms, rng = STRUCTURES["LiMnO2"].copy(), np.random.default_rng(9)
    atoms.calc = FastCHGNet(near, device="cpu", dtype="float64")
    for _ in range(8):
        atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
        fresh = FastCHGNet(near, device="cpu", dtype="float64").get_forces(atoms)
        assert np.abs(atoms.get_forces() - fresh).max() < 1e-11
    assert steps.recorded <= 2
    assert steps.played == steps.chosen > 0


def test_a_choice_serves_as_many_steps_of_dynamics_as_the_docs_say(steps: Steps) -> None:
    """LiMnO2 in NVE, 1 fs a step; half of the kinetic energy of 600 K becomes potential."""
    atoms, rng = STRUCTURES["LiMnO2"].copy(), np.random.default_rng(0)
    atoms.calc = FastCHGNet(device="cpu")
    spread = np.sqrt(2 * units.kB * 300 * atoms.get_masses())
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * spread[:, None])
    VelocityVerlet(atoms, units.fs).run(100)
    assert steps.played > 90
    assert 8 <= steps.played / steps.chosen <= 14


class Launches(TorchDispatchMode):
    """Operations that a CUDA device would be given, by name: neither views nor what only makes a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        result, name = operation(*args, **(kwargs or {})), operation.overloadpacket.__name__
        given = {storage_of(leaf) for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)}
        is_view = all(storage_of(leaf) in given for leaf in tree_leaves(result))
        writes = name.endswith("_") or "out" in (kwargs or {}) or not is_view
        if writes and not name.startswith(("empty", "new_empty")):
            self.counts[name] += 1
        return result


def storage_of(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def test_a_step_and_a_choice_are_as_many_kernels_as_the_docs_say(monkeypatch: pytest.MonkeyPatch) -> None:
    jit = pytest.importorskip("triton.runtime.jit", reason="Triton is for Linux only")
    launches = Launches()
    monkeypatch.setattr(_launch, "INTERPRETED", True)
    monkeypatch.setattr(jit.JITFunction, "run", lambda kernel, *_, **__: launches.counts.update([kernel.fn.__name__]))
    atoms, checkpoint = STRUCTURES["LiMnO2"], load_weights("0.3.0", "conservative")
    engine = Engine(checkpoint)
    cache = DeviceNeighborCache(Cutoffs(), 1.0)
    graph = cache.graph(atoms)
    assert cache.reference is not None
    assert cache.geometry is not None
    held, candidates = Cutoffs(6.0 + captured.HOLD, 3.0 + captured.HOLD), cache.reference.candidates
    sizes = sizes_within(candidates, graph.positions, graph.cell[0], held)
    assert sizes.angles / graph.n_angles == pytest.approx(3.3, abs=0.05)  # of Si there are no more
    capacity = capacity_for(candidates.n_bonds, sizes)
    fixed = FixedGraph(Cutoffs(), cache.geometry, capacity, torch.device("cpu"), captured.HOLD)
    fixed.load(candidates)
    fixed.place(cache.geometry)
    step = CapturedStep(Backend("triton", checkpoint, torch.float32, torch.device("cpu"), engine), cache)
    with torch.inference_mode(), launches:
        chosen = step.choose(fixed)
        choice = launches.counts.total()
        step.step(fixed, chosen)
    assert choice == pytest.approx(220, rel=0.05)  # another torch may do with one more or less
    assert launches.counts.total() - choice == pytest.approx(205, rel=0.05)
