"""chgnet's own relaxation example, LiMnO2, through `relax`: stock's results within its own tolerances, in float32."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stock import quiet, stock_model

from ase_fastchgnet import relax

LIMNO2 = Path(__file__).parents[2] / "examples" / "structures" / "LiMnO2.cif"
CHGNET_TOLERANCE = 1e-4  # relative, of the relaxed energy: chgnet 0.4.2, tests/test_relaxation.py
CHGNET_ENERGY = -58.94209  # eV, same place


@pytest.fixture(scope="module")
def example() -> Any:
    core = pytest.importorskip("pymatgen.core", reason="chgnet's example is a pymatgen Structure")
    with quiet():
        return core.Structure.from_file(LIMNO2)


def stock_relax(structure: Any, **options: Any) -> Any:
    with quiet():
        from chgnet.model import StructOptimizer

        return StructOptimizer(model=stock_model()).relax(structure.copy(), verbose=False, **options)


def test_the_example_as_it_is_in_chgnets_tests(example: Any) -> None:
    ours = relax(example, fmax=0.1)  # stock's default
    theirs = stock_relax(example)
    energies = theirs["trajectory"].energies
    assert ours.energy == pytest.approx(CHGNET_ENERGY, rel=CHGNET_TOLERANCE)
    assert ours.energy == pytest.approx(float(energies[-1]), rel=CHGNET_TOLERANCE)
    assert len(ours.frames) + 1 == len(energies)  # stock notes the last one twice
    magmoms = theirs["final_structure"].site_properties["magmom"]
    np.testing.assert_allclose(ours.structure.site_properties["magmom"], magmoms, atol=1e-3)


def test_from_a_distorted_start_the_same_path_to_the_same_minimum(example: Any) -> None:
    start = example.copy()
    start.translate_sites([0], [0.02, 0.01, -0.015])
    start.apply_strain([0.02, -0.01, 0.03])
    ours = relax(start, fmax=0.02)
    theirs = stock_relax(start, fmax=0.02)
    trajectory = theirs["trajectory"]
    assert ours.converged
    assert ours.n_steps > 20
    assert ours.n_steps == len(trajectory) - 2
    assert ours.energy == pytest.approx(float(trajectory.energies[-1]), rel=CHGNET_TOLERANCE)
    # Energies on the way differ by the float32 error of both, 1e-6 eV/atom, and by what a path amplifies of it.
    on_the_way = [frame.get_potential_energy() for frame in ours.frames]
    np.testing.assert_allclose(on_the_way, np.asarray(trajectory.energies[:-1], dtype=float), atol=8 * 2e-5)
    final = theirs["final_structure"]
    np.testing.assert_allclose(ours.structure.lattice.abc, final.lattice.abc, rtol=1e-3)
    assert ours.structure.volume == pytest.approx(final.volume, rel=1e-3)
