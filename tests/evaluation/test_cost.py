"""What an evaluation is expected to cost, and chunks of equal cost."""

import numpy as np
import pytest
from ase.build import fcc111, molecule
from structures import STRUCTURES, named

from ase_fastchgnet.evaluation.cost import CostModel, Learning, chunks
from ase_fastchgnet.graph import Cutoffs
from ase_fastchgnet.graph.size import Size, expected_size, size_of


def test_guesses_of_sizes_are_right_within_a_factor() -> None:
    crystals = [STRUCTURES[name] for name in named(lambda atoms: len(atoms) <= 14 and bool(atoms.pbc.all()))]
    solids = [atoms for atoms in crystals if len(atoms) / atoms.get_volume() > 0.03]
    slab = fcc111("Cu", (2, 2, 3), vacuum=15, periodic=True)
    assert len(solids) >= 10
    for atoms in [*solids, slab]:
        guess, real = expected_size(atoms, Cutoffs()), size_of(atoms, Cutoffs())
        assert (guess.structures, guess.atoms) == (1, real.atoms)
        assert 0.5 < guess.edges / real.edges < 2
    benzene = molecule("C6H6")
    assert expected_size(benzene, Cutoffs()).edges == size_of(benzene, Cutoffs()).edges == 12 * 11


def test_chunks_take_the_same_time_and_few_items_are_shared_out() -> None:
    assert [len(chunk) for chunk in chunks(range(250), lambda n: 0.05)] == [10] * 25
    assert [len(chunk) for chunk in chunks(range(12), lambda n: 0.05, among=4)] == [3] * 4
    assert list(chunks([5.0, 0.1, 0.1], lambda seconds: seconds)) == [[5.0], [0.1, 0.1]]
    assert max(map(len, chunks(range(1000), lambda n: 0.0))) == 200


def test_costs_are_learnt_from_measurements() -> None:
    random = np.random.default_rng(0)
    truth = CostModel(structure=1e-3, atom=0.0, edge=2e-6, angle=3e-5)
    learning = Learning()
    sizes = [Size(10, 100, int(e), int(a)) for e, a in random.integers(1_000, 9_000, (20, 2))]
    for size in sizes:
        learning.measured(size, truth.seconds(size) * random.uniform(0.98, 1.02))
    for size in sizes:
        assert learning.model.seconds(size) == pytest.approx(truth.seconds(size), rel=0.03)
