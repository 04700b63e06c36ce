"""relax_many, phonons and neb in several processes: the numbers of this process, whatever fails named."""

import pickle
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones

from ase_fastchgnet import FastCHGNet, Relaxation, RelaxationError, neb, phonons, relax_many
from ase_fastchgnet.parallel.crew import Here


def salts(count: int) -> list[Atoms]:
    crystals = [bulk("NaCl", "rocksalt", a=5.4 + n / 50) for n in range(count)]
    for n, crystal in enumerate(crystals):
        crystal.rattle(0.05, seed=n)
    return crystals


def test_structures_relax_in_several_processes_as_in_one() -> None:
    lonely = Atoms("Ar2", positions=[[1, 1, 1], [1, 1, 12]])
    overlap = Atoms("He2", positions=[[0, 0, 0], [0, 0, 0.001]])
    squeezed = bulk("Si", "diamond", a=2.2)
    structures = [*salts(3), lonely, overlap, squeezed, Atoms("Es", cell=[4, 4, 4], pbc=True)]
    calculator = FastCHGNet(dtype="float64")
    with pytest.warns(UserWarning, match=r"^system 3: atoms 0, 1 have no neighbour"):
        together = relax_many(structures, calculator, fmax=0.01, steps=8)
    with pytest.warns(UserWarning, match=r"^system 3: atoms 0, 1 have no neighbour"):
        apart = relax_many(structures, calculator, fmax=0.01, steps=8, devices=2)
    for one, other in zip(together, apart, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Relaxation):
            assert isinstance(other, Relaxation)
            assert (one.n_steps, one.converged) == (other.n_steps, other.converged)
            # float64 in batches of other sizes, along a whole relaxation
            assert one.energy == pytest.approx(other.energy, abs=1e-8)
            np.testing.assert_allclose(one.structure.positions, other.structure.positions, atol=1e-6)
            assert len(one.frames) == len(other.frames)
        else:
            assert str(one) == str(other)
    failed = [isinstance(one, Exception) for one in apart]
    assert failed == [False, False, False, False, True, isinstance(together[5], Exception), True]


def test_an_explosion_comes_back_with_its_frames() -> None:
    error = RelaxationError("it exploded", [bulk("Cu"), bulk("Ag")])
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == "it exploded"
    assert [str(frame.symbols) for frame in copy.frames] == ["Cu", "Ag"]


class Counting:
    """An executor that works here and remembers how many structures each call had."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> "Future[Any]":
        self.calls.append(len(args[0]))
        return Here().submit(fn, *args)


def test_structures_are_shared_out_evenly() -> None:
    executor = Counting()
    results = relax_many(salts(1) * 64, steps=0, executor=executor)
    assert all(isinstance(result, Relaxation) for result in results)
    assert len(executor.calls) == 32  # as many as are made at least for an executor of which nothing is known
    assert set(executor.calls) == {2}


def test_phonons_in_several_processes_are_those_of_one() -> None:
    pytest.importorskip("phonopy")
    options = {"relax": False, "fmax": 10.0, "supercell": [2, 2, 2], "mesh": 10.0}
    salt = bulk("NaCl", "rocksalt", a=5.6)
    one, other = phonons(salt, **options), phonons(salt, devices=2, **options)  # type: ignore[arg-type]
    assert len(one.phonopy.supercells_with_displacements) == 2  # one for each process
    for band, same in zip(one.bands, other.bands, strict=True):
        np.testing.assert_allclose(band.frequencies, same.frequencies, atol=1e-6)


def test_a_band_in_several_processes_is_that_of_one() -> None:
    crystal = bulk("Li", "bcc", a=3.43, cubic=True) * (2, 2, 2)
    before, after = crystal.copy(), crystal.copy()
    del before[0], after[1]
    after.positions[0] = crystal.positions[0]
    options = {"images": 2, "steps": 3, "climb": False}
    calculator = FastCHGNet(dtype="float64")
    one = neb(before, after, calculator, **options)  # type: ignore[arg-type]
    other = neb(before, after, calculator, devices=2, **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(one.energies, other.energies, atol=1e-8)
    assert one.n_steps == other.n_steps == 3


def test_another_calculator_works_in_this_process_only() -> None:
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    moved = atoms.copy()
    moved.positions[0, 0] += 1.0
    with pytest.raises(ValueError, match="LennardJones works in this process"):
        neb(atoms, moved, LennardJones(), devices=2)
