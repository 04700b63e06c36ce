"""g(r) against what is known of crystals and of gases."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_fastchgnet import md, radial_distribution
from tests.elastic_crystal import ElasticCrystal, salt


def gas(frames: int, seed: int = 0) -> list[Atoms]:
    """Forty sodium and twenty chlorine atoms anywhere in a skewed box of some 12 Å."""
    rng = np.random.default_rng(seed)
    cell = np.array([[12.0, 0, 0], [2, 12, 0], [-1, 1.5, 13]])
    return [Atoms("Na40Cl20", positions=rng.random((60, 3)) @ cell, cell=cell, pbc=True) for _ in range(frames)]


def test_an_ideal_gas_has_no_structure() -> None:
    """1 between elements, 1 - 1/N within one; Poisson's error of the pairs in a bin, four times."""
    frames = gas(400)
    for pair, expected, pairs in [
        (("Na", "Cl"), 1.0, 800),
        (("Na", "Na"), 1 - 1 / 40, 780),
        (None, 1 - 1 / 60, 1770),
    ]:
        found = radial_distribution(frames, pair, cutoff=5.5, width=0.5)
        shells = 4 / 3 * np.pi * np.diff((0.5 * np.arange(12)) ** 3)
        counted = 400 * pairs * shells / frames[0].cell.volume
        np.testing.assert_array_less(np.abs(found.g - expected), 4 / np.sqrt(counted))


def test_a_crystal_has_its_shells() -> None:
    """Rock salt, from the primitive cell: neighbours beyond the cell are its images."""
    a = 5.64
    crystal = bulk("NaCl", "rocksalt", a=a)
    unlike = radial_distribution([crystal], ("Na", "Cl"), cutoff=8, width=0.1)
    like = radial_distribution([crystal], ("Na", "Na"), cutoff=8, width=0.1)
    every = radial_distribution([crystal], cutoff=8, width=0.1)
    for found, shells in [
        (unlike, [(a / 2, 6), (a * np.sqrt(3) / 2, 14), (a * np.sqrt(5) / 2, 38)]),
        (like, [(a / np.sqrt(2), 12), (a, 18), (a * np.sqrt(1.5), 42)]),
        (every, [(a / 2, 6), (a / np.sqrt(2), 18), (a * np.sqrt(3) / 2, 26)]),
    ]:
        for distance, neighbours in shells:
            bin_of_shell = int(distance / 0.1)
            assert found.g[bin_of_shell] > 1
            assert found.coordination[bin_of_shell] == pytest.approx(neighbours)
        assert not found.g[: int(shells[0][0] / 0.1)].any()
    # neighbours in a bin = density of the second element × volume of the shell × g
    shell = 4 / 3 * np.pi * np.diff((0.1 * np.arange(81)) ** 3)
    np.testing.assert_allclose(np.cumsum(unlike.g * shell / crystal.get_volume()), unlike.coordination, atol=1e-9)


def test_frames_of_different_volume_each_have_their_density() -> None:
    frames = gas(200)
    large = [frame.copy() for frame in frames]
    for frame in large:
        frame.set_cell(frame.cell * 1.3, scale_atoms=True)
    found = radial_distribution(frames + large, ("Na", "Cl"), cutoff=5.5, width=0.5)
    assert found.g[3:].mean() == pytest.approx(1, abs=0.02)


def test_of_a_run_of_md(tmp_path: Path) -> None:
    atoms = salt()
    run = md(atoms, ElasticCrystal(atoms), steps=40, temperature=300, trajectory_interval=5)
    late = radial_distribution(run, ("Na", "Cl"), skip=20)
    np.testing.assert_array_equal(late.g, radial_distribution(run.frames()[4:], ("Na", "Cl")).g)
    late.write(tmp_path / "g.csv")
    table = np.loadtxt(tmp_path / "g.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(table, np.column_stack([late.distance, late.g, late.coordination]), rtol=1e-7)
    pytest.importorskip("matplotlib")
    figure, axes = late.plot()
    figure.canvas.draw()
    assert axes.get_legend().get_texts()[0].get_text() == "Na–Cl"


def test_what_has_no_density_or_no_such_element_is_refused() -> None:
    with pytest.raises(ValueError, match="no 'K' among the atoms"):
        radial_distribution(gas(1), ("Na", "K"))
    with pytest.raises(ValueError, match="three periodic directions"):
        radial_distribution([Atoms("N2", positions=[[0, 0, 0], [0, 0, 1]])])
    with pytest.raises(ValueError, match="no frames"):
        radial_distribution([])
    with pytest.raises(ValueError, match="not one bin"):
        radial_distribution(gas(1), width=20)
