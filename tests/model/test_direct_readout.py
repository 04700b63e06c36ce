"""Direct forces and stress: exact symmetries whatever the weights, smooth, and near the derivatives they stand for."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from ase_fastchgnet import FastCHGNet, evaluate, load_checkpoint
from ase_fastchgnet.evaluation.prediction import Prediction
from ase_fastchgnet.graph import Cutoffs, build_batch
from ase_fastchgnet.model.checkpoint import Checkpoint, save_checkpoint
from ase_fastchgnet.model.engine import Engine, direct_readout
from ase_fastchgnet.model.engine.index import build_index
from fastchgnet_kernels import edge_geometry
from tests.structures import STRUCTURES, other_basis, rattled

# As in test_physics: roundings of symmetry transforms, times second derivatives, times the depth of the network.
ROUNDING = 1e-10
CUTOFFS = Cutoffs(6.0, 3.0)
CRYSTALS = {
    "LiMnO2": rattled(STRUCTURES["LiMnO2"], (1, 1, 1), 0.05, seed=0),
    "MgO": rattled(bulk("MgO", "rocksalt", a=4.21), (1, 1, 1), 0.08, seed=1),
    "Si": rattled(bulk("Si"), (1, 1, 1), 0.05, seed=2),
    "bcc Li, without angles": rattled(bulk("Li", "bcc", a=3.5, cubic=True), (1, 1, 1), 0.05, seed=3),
    "CH3NH3SnI3": STRUCTURES["CH3NH3SnI3"],
}


def predict(*structures: Atoms, dtype: str = "float64", forces: str = "direct") -> list[Prediction]:
    return evaluate(structures, dtype=dtype, forces=forces, on_isolated_atoms="ignore")  # type: ignore[arg-type]


def full(prediction: Prediction) -> np.ndarray:
    assert prediction.stress is not None
    xx, yy, zz, yz, xz, xy = prediction.stress
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


@pytest.fixture(params=CRYSTALS)
def crystal(request: pytest.FixtureRequest) -> Atoms:
    atoms: Atoms = CRYSTALS[request.param].copy()
    return atoms


def test_forces_and_stress_turn_with_the_structure(crystal: Atoms) -> None:
    turn = Rotation.from_euler("xyz", [0.4, -1.1, 2.0]).as_matrix()
    turned = crystal.copy()
    turned.set_cell(crystal.cell.array @ turn.T)
    turned.positions = crystal.positions @ turn.T
    before, after = predict(crystal, turned)
    assert abs(after.forces - before.forces @ turn.T).max() < ROUNDING
    assert abs(full(after) - turn @ full(before) @ turn.T).max() < ROUNDING


def test_origin_wrapping_and_choice_of_cell_change_nothing(crystal: Atoms) -> None:
    moved = crystal.copy()
    moved.positions += [0.3, -7.1, 2.2]
    moved.wrap()
    skewed = other_basis(crystal, [[1, 1, 0], [0, 1, 0], [0, 2, 1]])
    doubled = crystal.repeat((2, 1, 1))
    base, *others = predict(crystal, moved, skewed)
    (twice,) = predict(doubled)
    for other in others:
        assert abs(other.forces - base.forces).max() < ROUNDING
        assert abs(other.stress - base.stress).max() < ROUNDING
    assert abs(twice.forces - np.tile(base.forces, (2, 1))).max() < ROUNDING
    assert abs(twice.stress - base.stress).max() < ROUNDING


def test_forces_sum_to_zero_and_exert_no_torque_on_a_molecule() -> None:
    ethanol = molecule("CH3CH2OH")
    ethanol.rattle(0.05, seed=1)
    crystal, free = predict(CRYSTALS["LiMnO2"], ethanol)
    assert abs(free.forces).max() > 0.1
    for prediction in (crystal, free):
        assert abs(prediction.forces.sum(0)).max() < 1e-12
    assert abs(np.cross(ethanol.positions, free.forces).sum(0)).max() < 1e-12


@pytest.mark.parametrize("which", ["atom", "bond"])
def test_forces_are_continuous_where_a_pair_comes_into_reach_or_a_bond_becomes_short(which: str) -> None:
    """What a pair at δ from the cut-off does to forces is O(δ²): its envelope is O(δ³), the slope of it O(δ²).

    A graph whose cut-off lies just below the distance says what forces are without it. From δ = 0.01 to 0.0025 Å the
    difference falls by 4² or more, less what the next order adds (a tenth); not at all if a force jumped.
    """
    engine = Engine(load_checkpoint("0.3.0-direct"), dtype=torch.float64, forces="direct")
    changes = []
    for delta in (1e-2, 2.5e-3):
        distance = getattr(CUTOFFS, which) - delta
        atoms = Atoms("MnOOO", [[0, 0, 0], [-0.6, 0.8, 0], [-0.6, -0.5, 0.7], [distance, 0, 0]])
        with_it = engine.evaluate(build_batch([atoms], CUTOFFS)).forces
        without = engine.evaluate(build_batch([atoms], replace(CUTOFFS, **{which: distance - 1e-9}))).forces
        changes.append(float((with_it - without).abs().max()))
    assert changes[0] > 1e-10  # the pair does something
    assert np.log(changes[0] / changes[1]) / np.log(4) >= 1.9


def test_exact_derivatives_by_bonds_and_angles_give_the_exact_forces_and_virial(crystal: Atoms) -> None:
    """So all that a readout can be wrong in are those derivatives."""
    engine = Engine(load_checkpoint("0.3.0"), dtype=torch.float64)
    graph = build_batch([crystal], CUTOFFS)
    tape = engine.forward(graph)
    exact = engine.derivatives(tape)
    nothing = torch.zeros_like(exact.length)
    found = direct_readout.Derivatives(exact.length, exact.theta, nothing, nothing)
    at = direct_readout.ends(graph, build_index(graph))
    forces, virial = direct_readout.forces_and_virial(found, graph, edge_geometry.forward(graph), at)
    expected_forces, expected_virial = engine.backward(tape)
    assert (forces - expected_forces).abs().max() < 1e-12
    assert (virial - expected_virial).abs().max() < 1e-12 * max(1.0, float(expected_virial.abs().max()))


def test_energies_and_magnetic_moments_are_those_of_the_model_itself(crystal: Atoms) -> None:
    (direct,), (exact,) = predict(crystal), predict(crystal, forces="conservative")
    assert direct.energy == exact.energy
    assert np.array_equal(direct.magmoms, exact.magmoms)


def test_direct_forces_and_stress_are_near_the_exact_ones() -> None:
    """On crystals the readout has not seen: within a third of the exact forces, half of the stress, on average.

    The model card has the figures; this is a guard against weights that do not belong to the trunk.
    """
    structures = [CRYSTALS[name] for name in ("LiMnO2", "MgO", "Si")]
    for direct, exact in zip(predict(*structures), predict(*structures, forces="conservative"), strict=True):
        assert abs(direct.forces - exact.forces).mean() < abs(exact.forces).mean() / 3
        assert abs(direct.stress - exact.stress).mean() < abs(exact.stress).mean() / 2


def test_a_batch_gives_what_its_structures_give_alone() -> None:
    structures = [*CRYSTALS.values(), molecule("H2O"), Atoms("Ar"), bulk("Fe", "bcc", a=2.87)]
    together = predict(*structures)
    for prediction, atoms in zip(together, structures, strict=True):
        (alone,) = predict(atoms)
        assert abs(prediction.forces - alone.forces).max() < ROUNDING
        assert (prediction.stress is None) == (alone.stress is None)
        if alone.stress is not None:
            assert abs(prediction.stress - alone.stress).max() < ROUNDING


def test_float32_differs_from_float64_by_its_rounding(crystal: Atoms) -> None:
    """A relative 6e-8 through some 300 roundings on derivatives of up to some eV/Å: 1e-4 with ten neighbours' worth."""
    (single,), (double,) = predict(crystal, dtype="float32"), predict(crystal)
    assert abs(single.forces - double.forces).max() < 1e-4


def test_the_calculator_changes_to_direct_forces_and_back() -> None:
    atoms = CRYSTALS["LiMnO2"].copy()
    atoms.calc = FastCHGNet(dtype="float64")
    exact, energy = atoms.get_forces(), atoms.get_potential_energy()
    atoms.calc.set(forces="direct")
    direct = atoms.get_forces()
    assert atoms.get_potential_energy() == energy
    assert abs(direct - exact).max() > 1e-4
    assert "forces='direct'" in repr(atoms.calc)
    assert np.array_equal(pickle.loads(pickle.dumps(atoms.calc)).get_forces(atoms), direct)
    atoms.calc.set(forces="conservative")
    assert np.array_equal(atoms.get_forces(), exact)


def test_energies_first_and_direct_forces_later_is_the_same() -> None:
    atoms = CRYSTALS["MgO"].copy()
    atoms.calc = FastCHGNet(dtype="float64", forces="direct")
    atoms.get_potential_energy()
    later = atoms.get_forces()
    (at_once,) = predict(atoms)
    assert abs(later - at_once.forces).max() < 1e-14


@pytest.mark.parametrize("model", ["0.2.0", "r2scan"])
def test_a_model_without_a_readout_is_refused_by_name(model: str) -> None:
    with pytest.raises(ValueError, match=f"model '{model}' has no weights for direct forces; use one of '0.3.0'"):
        evaluate([CRYSTALS["Si"]], model, forces="direct")


def test_a_checkpoint_with_a_readout_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    given = load_checkpoint("0.3.0-direct")
    save_checkpoint(given, f"{tmp_path}/whole.safetensors")
    atoms = CRYSTALS["LiMnO2"]
    (again,) = evaluate([atoms], f"{tmp_path}/whole.safetensors", dtype="float64", forces="direct")
    assert np.array_equal(again.forces, predict(atoms)[0].forces)
    assert_same_trunk(given, load_checkpoint("0.3.0"))


def assert_same_trunk(direct: Checkpoint, trunk: Checkpoint) -> None:
    weights = direct.parameters.to_state_dict(direct.config)
    for name, tensor in trunk.parameters.to_state_dict(trunk.config).items():
        assert torch.equal(weights[name], tensor), name
