"""A recorded step says what a step done one by one says. On a CPU a step is not recorded but run again: same code."""

import warnings

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.md.langevin import Langevin
from structures import STRUCTURES

from ase_fastchgnet.evaluation import captured
from ase_fastchgnet.evaluation.backend import Backend
from ase_fastchgnet.evaluation.captured import CapturedStep
from ase_fastchgnet.evaluation.source import Forces, load_weights
from ase_fastchgnet.graph import DeviceNeighborCache
from ase_fastchgnet.graph.fixed_graph import Capacity, FixedGraph, Summary
from ase_fastchgnet.graph.validate import read_geometry
from ase_fastchgnet.model.engine import Engine
from fastchgnet_kernels import _launch
from tests.evaluation.recorded import Steps, assert_as_if_alone, calc, walk

META = torch.device("meta")


def test_steps_of_a_moving_system_are_recorded_and_right(steps: Steps) -> None:
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.calc = calc()
    walk(atoms, 8)
    assert steps.recorded == 1
    assert steps.played == 8 - captured.PATIENCE


def test_a_new_search_and_a_new_lattice_do_not_end_a_recording(steps: Steps) -> None:
    atoms = STRUCTURES["LiMnO2 skewed"].copy()
    atoms.calc = calc(skin=0.2)
    walk(atoms, 4)
    searches, rng = atoms.calc._cache.builds, np.random.default_rng(1)
    for _ in range(10):
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.002, size=(3, 3))), scale_atoms=True)
        walk(atoms, 1, seed=int(rng.integers(1000)), scale=0.02)
    assert atoms.calc._cache.builds > searches + 1
    assert steps.recorded == 1
    assert steps.played > 4


def test_other_atoms_begin_anew(steps: Steps) -> None:
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.calc = calc()
    walk(atoms, 5)
    for change in (
        lambda: atoms.pop(),
        lambda: setattr(atoms, "numbers", atoms.numbers[::-1]),
        lambda: setattr(atoms, "pbc", (True, True, False)),
    ):
        played = steps.played
        change()
        walk(atoms, captured.PATIENCE, scale=0.005)
        assert steps.played == played
        walk(atoms, 1, scale=0.005)
        assert steps.played == played + 1
    assert steps.recorded == 4


def test_a_system_that_outgrows_its_recording_gets_a_larger_one(steps: Steps) -> None:
    atoms = STRUCTURES["LiMnO2 stretched"].copy()
    atoms.calc = calc(skin=4.0)
    walk(atoms, 5)
    for _ in range(7):
        atoms.set_cell(atoms.cell.array * 0.96, scale_atoms=True)
        walk(atoms, 1, scale=0.005)
    assert 2 <= steps.recorded <= 6
    grown = steps.recorded
    for _ in range(3):  # what was large enough once stays
        atoms.set_cell(atoms.cell.array * 1.04, scale_atoms=True)
        walk(atoms, 1, scale=0.005)
    assert steps.recorded == grown


@pytest.mark.parametrize("name", ["slab on its side", "wire", "benzene in a box"])
def test_systems_that_are_not_periodic_are_recorded_too(name: str, steps: Steps) -> None:
    atoms = STRUCTURES[name].copy()
    atoms.calc = calc()
    walk(atoms, 6)
    assert steps.played >= 2


def test_a_step_is_recorded_again_some_time_after_an_atom_was_alone(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "AGAIN", 4)
    atoms = Atoms("SiOSi", positions=[[0, 0, 0], [0, 0, 1.6], [0, 0, 5.7]], cell=[20, 20, 20], pbc=True)
    atoms.calc = calc(skin=3.0)
    walk(atoms, 6, scale=0.001)
    played = steps.played
    assert played > 0
    atoms.positions[2, 2] = 7.5  # 5.9 Å from the oxygen: a neighbour, but not certain to stay one
    walk(atoms, 5, scale=0.001)
    assert steps.played <= played + 1
    atoms.positions[2, 2] = 5.0
    walk(atoms, 10, scale=0.001)
    assert steps.recorded == 2
    assert steps.played > played + 3


def test_a_large_system_is_not_recorded(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "LARGEST", 100)
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.calc = calc()
    walk(atoms, 5)
    assert steps.recorded == 0


def test_isolated_atoms_are_warned_of_as_ever(steps: Steps) -> None:
    atoms = STRUCTURES["benzene in a box"].copy()
    atoms.calc = calc()
    walk(atoms, 5)
    assert steps.played > 0
    atoms.set_cell([40, 40, 40])
    atoms.positions[0] += 15
    with pytest.warns(UserWarning, match="atom 0 has no neighbour"):
        atoms.get_forces()
    assert_as_if_alone(atoms)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        walk(atoms, 5)


def test_atoms_on_top_of_each_other_are_refused_as_ever(steps: Steps) -> None:
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.calc = calc()
    walk(atoms, 5)
    played, atoms.positions[1] = steps.played, atoms.positions[0] + 1e-4
    with pytest.raises(ValueError, match="atoms 0"):
        atoms.get_forces()
    assert steps.played <= played + 1
    atoms.positions[1] += 2.0
    walk(atoms, 2)


def test_dynamics_are_the_same_with_and_without(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> Atoms:
        atoms = STRUCTURES["NaCl"].repeat(2)
        atoms.calc = calc()
        rng = np.random.default_rng(3)
        Langevin(atoms, 2 * units.fs, temperature_K=600, friction=0.05 / units.fs, rng=rng, fixcm=False).run(30)
        return atoms

    recorded = run()
    assert steps.played > 20
    monkeypatch.setattr(captured, "LARGEST", 0)
    plain = run()
    # Rounding of 1e-15 grows with the time, tenfold in some 50 fs.
    assert np.abs(recorded.positions - plain.positions).max() < 1e-11
    assert np.abs(recorded.positions - STRUCTURES["NaCl"].repeat(2).positions).max() > 0.05


@pytest.mark.parametrize("properties", [["energy"], ["magmoms"]])
def test_once_a_step_is_recorded_everything_comes_with_energies_alone(properties: list[str], steps: Steps) -> None:
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.calc = calc()
    walk(atoms, 5)
    played = steps.played
    atoms.rattle(0.01, seed=1)
    atoms.calc.calculate(atoms, properties)
    assert {"energy", "forces", "stress", "magmoms"} <= atoms.calc.results.keys()
    assert steps.played == played + 1
    assert_as_if_alone(atoms)
    assert steps.played == played + 1


def test_programs_that_ask_for_the_energy_first_are_recorded_too(steps: Steps) -> None:
    atoms, rng = STRUCTURES["LiMnO2"].copy(), np.random.default_rng(6)
    atoms.calc = calc()
    for _ in range(6):
        atoms.positions += rng.normal(scale=0.01, size=atoms.positions.shape)
        atoms.get_potential_energy()
        atoms.get_forces()
        assert_as_if_alone(atoms)
    assert steps.recorded == 1
    assert steps.played == 6 - captured.PATIENCE


def test_without_a_skin_nothing_is_recorded_as_every_step_searches(steps: Steps) -> None:
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.calc = calc(skin=0.0)
    walk(atoms, 5)
    assert steps.recorded == steps.chosen == 0


def test_embeddings_are_those_of_the_last_step(steps: Steps) -> None:
    atoms, fresh = STRUCTURES["LiMnO2"].copy(), calc()
    atoms.calc = calc()
    walk(atoms, 5)
    sites = atoms.calc.site_embeddings(atoms)
    assert sites.shape == (len(atoms), 64)
    assert np.allclose(sites, fresh.site_embeddings(atoms), rtol=0, atol=1e-12)
    assert np.allclose(atoms.calc.crystal_embedding(atoms), fresh.crystal_embedding(atoms), rtol=0, atol=1e-11)
    walk(atoms, 1)
    assert not np.allclose(sites, atoms.calc.site_embeddings(atoms), rtol=0, atol=1e-6)


def test_a_recording_that_fails_is_warned_of_and_steps_go_on(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure is made up: what fails on a device, if anything, nobody knows beforehand."""

    def fail(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(captured, "record", fail)
    atoms = STRUCTURES["LiMnO2"].copy()
    atoms.calc = calc()
    walk(atoms, captured.PATIENCE - 1)
    atoms.rattle(0.01, seed=5)
    with pytest.warns(UserWarning, match="not permitted when stream is capturing"):
        atoms.get_forces()
    walk(atoms, 3)


@pytest.mark.parametrize("forces", ["conservative", "direct"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_never_asks_the_device_for_a_number(
    forces: Forces, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What CUDA graphs are recorded of. Meta tensors have no values, so whatever waits for one fails.

    Kernels cannot be launched on them: launches are counted instead.
    """
    jit = pytest.importorskip("triton.runtime.jit", reason="Triton is for Linux only")
    launched: list[str] = []
    monkeypatch.setattr(_launch, "INTERPRETED", True)  # kernels, whatever the device
    monkeypatch.setattr(jit.JITFunction, "run", lambda kernel, *_, **__: launched.append(kernel.fn.__name__))
    checkpoint = load_weights("0.3.0", forces)
    engine = Engine(checkpoint, dtype=dtype, device="meta", forces=forces)
    backend = Backend("triton", checkpoint, dtype, META, engine)
    step = CapturedStep(backend, DeviceNeighborCache(backend.cutoffs, device=META))
    now = read_geometry(STRUCTURES["LiMnO2"], 0)
    fixed = FixedGraph(backend.cutoffs, now, Capacity(500, 300, 100, 1000), META)
    chosen = step.choose(fixed)
    assert launched == []
    results = step.step(fixed, chosen)
    assert results.row.shape == (len(Summary._fields) + 8 * (1 + 1 + 3) + 9,)
    assert len(launched) >= 20
    assert ("message_backward_kernel" in launched) is (forces == "conservative")
