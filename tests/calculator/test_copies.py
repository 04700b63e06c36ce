"""Copies in memory and on disk: small, without tensors, and the same calculator afterwards."""

import copy
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.db import connect
from ase.io import read, write
from ase.io.trajectory import Trajectory

from ase_fastchgnet import FastCHGNet, load_checkpoint
from ase_fastchgnet.model.checkpoint import save_checkpoint


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda calc: pickle.loads(pickle.dumps(calc))])
def test_a_copy_has_the_same_options_and_energies_and_its_own_state(
    salt: Atoms, duplicate: Callable[[FastCHGNet], FastCHGNet]
) -> None:
    calc = FastCHGNet("0.2.0", dtype="float64", skin=0.4, on_isolated_atoms="error", device="cpu")
    forces = calc.get_forces(salt)
    twin = duplicate(calc)
    assert twin.parameters == calc.parameters
    assert twin.results == {}
    np.testing.assert_array_equal(twin.get_forces(salt), forces)
    twin.get_forces(salt.repeat((2, 1, 1)))
    assert not calc.calculation_required(salt, ["forces"])


def test_a_pickle_is_small_and_holds_no_tensor(salt: Atoms) -> None:
    calc = FastCHGNet()
    calc.get_potential_energy(salt)  # leaves a forward pass pending
    data = pickle.dumps(calc)
    assert len(data) < 1000
    assert "torch" not in " ".join(str(argument) for _, argument, _ in pickletools.genops(data))


def test_atoms_with_a_calculator_are_pickled_and_copied_deeply(salt: Atoms) -> None:
    salt.calc = FastCHGNet()
    energy = salt.get_potential_energy()
    for twin in (pickle.loads(pickle.dumps(salt)), copy.deepcopy(salt)):
        assert twin.calc is not salt.calc
        assert twin.get_potential_energy() == energy


def test_a_path_is_pickled_as_the_file_it_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, salt: Atoms) -> None:
    save_checkpoint(load_checkpoint("0.3.0"), tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    calc = FastCHGNet("mine.safetensors")
    monkeypatch.chdir("/")
    twin = pickle.loads(pickle.dumps(calc))
    assert twin.get_potential_energy(salt) == FastCHGNet().get_potential_energy(salt)
    assert calc.todict()["model_sha256"] == load_checkpoint(tmp_path / "mine.safetensors").sha256


def test_a_checkpoint_in_memory_is_pickled_by_name_if_it_is_a_released_one(salt: Atoms) -> None:
    released = load_checkpoint("0.3.0")
    assert pickle.loads(pickle.dumps(FastCHGNet(released))).parameters["model"] == "0.3.0"
    mine = FastCHGNet(replace(released, name="mine", sha256="0" * 64))
    with pytest.raises(pickle.PicklingError, match="save_checkpoint"):
        pickle.dumps(mine)
    assert copy.deepcopy(mine).get_potential_energy(salt) == mine.get_potential_energy(salt)


@pytest.mark.parametrize("suffix", ["traj", "json", "db", "extxyz"])
def test_results_are_written_by_ase_and_read_back(salt: Atoms, tmp_path: Path, suffix: str) -> None:
    salt.calc = FastCHGNet()
    salt.get_stress()
    path = tmp_path / f"salt.{suffix}"
    write(path, salt)
    back = read(path)
    assert isinstance(back, Atoms)
    digits = 1e-7 if suffix == "extxyz" else 1e-12  # that format rounds to 8 decimals
    assert back.get_potential_energy() == pytest.approx(salt.get_potential_energy(), abs=digits)
    np.testing.assert_allclose(back.get_forces(), salt.get_forces(), atol=digits)
    np.testing.assert_allclose(back.get_stress(), salt.get_stress(), atol=digits)
    np.testing.assert_allclose(back.get_magnetic_moments(), salt.get_magnetic_moments(), atol=digits)


@pytest.mark.parametrize("suffix", ["traj", "json", "db", "extxyz"])
def test_a_molecule_is_written_as_well(water: Atoms, tmp_path: Path, suffix: str) -> None:
    water.calc = FastCHGNet()
    water.get_forces()
    write(tmp_path / f"water.{suffix}", water)
    back = read(tmp_path / f"water.{suffix}")
    assert isinstance(back, Atoms)
    np.testing.assert_allclose(back.get_forces(), water.get_forces(), atol=1e-7)


def test_files_name_the_model_and_the_hash_of_its_weights(salt: Atoms, tmp_path: Path) -> None:
    salt.calc = FastCHGNet()
    salt.get_forces()
    database = connect(tmp_path / "salt.db")
    database.write(salt)
    row = database.get(1)
    assert row.calculator == "fastchgnet"
    assert row.calculator_parameters["model_sha256"] == load_checkpoint("0.3.0").sha256
    with Trajectory(str(tmp_path / "salt.traj"), "w", salt) as trajectory:
        trajectory.write()
    back = read(tmp_path / "salt.traj")
    assert isinstance(back, Atoms)
    assert back.calc is not None
    assert back.calc.name == "fastchgnet"
    assert back.calc.parameters["model"] == "0.3.0"
