"""The filter that remembers: ASE's numbers, computed once a geometry."""

import numpy as np
import pytest
from ase import Atoms
from ase.filters import FrechetCellFilter
from structures import STRUCTURES, rattled

from ase_fastchgnet import FastCHGNet
from ase_fastchgnet.workflows.cell_filter import CellFilter

OPTIONS = [{}, {"scalar_pressure": 0.1}, {"constant_volume": True}, {"mask": [1, 1, 0, 0, 0, 1]}]


def sheared() -> Atoms:
    atoms = rattled(STRUCTURES["NaCl"], (1, 1, 1), 0.1, seed=2)
    atoms.calc = FastCHGNet()
    return atoms


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_forces_are_those_of_ase_wherever_the_structure_goes(options: dict[str, object]) -> None:
    ours, theirs = CellFilter(sheared(), **options), FrechetCellFilter(sheared(), **options)
    rng = np.random.default_rng(4)
    for _ in range(4):
        np.testing.assert_array_equal(ours.get_forces(), theirs.get_forces())
        np.testing.assert_array_equal(ours.get_forces(), theirs.get_forces())
        np.testing.assert_array_equal(ours.stress, theirs.stress)
        step = 0.02 * rng.normal(size=ours.get_positions().shape)
        for target in (ours, theirs):
            target.set_positions(target.get_positions() + step)


def test_forces_follow_a_cell_that_is_changed_behind_the_back_of_the_filter() -> None:
    ours = CellFilter(sheared())
    before = ours.get_forces()
    ours.atoms.set_cell(ours.atoms.cell * 1.02, scale_atoms=True)
    assert np.abs(ours.get_forces() - before).max() > 0.01


def test_nobody_can_change_what_is_remembered() -> None:
    ours = CellFilter(sheared())
    before = ours.get_forces()
    ours.get_forces()[:] = np.nan
    np.testing.assert_array_equal(ours.get_forces(), before)


def test_the_logarithm_is_taken_once_a_geometry(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = CellFilter(sheared())
    utility, taken = ours._utility, []
    logm = utility.logm
    monkeypatch.setattr(utility, "logm", lambda matrix: taken.append(1) or logm(matrix))
    for _ in range(3):
        ours.get_forces()
    assert len(taken) == 1
