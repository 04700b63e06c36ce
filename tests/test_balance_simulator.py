"""The simulator of balanced training against what must come out of it where that is known."""

import numpy as np
import pytest

from ase_fastchgnet.training.cost import StepCost
from benchmarks import balance
from benchmarks.balance import BATCH, GLOBAL, all_reduce, read_sizes, simulate

FREE = StepCost(step=0.0, atom=0.0, edge=1.0, angle=0.0)


@pytest.fixture
def fast_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that take no time."""
    monkeypatch.setattr(balance, "BANDWIDTH", float("inf"))
    monkeypatch.setattr(balance, "LATENCY", 0.0)


@pytest.mark.usefixtures("fast_network")
@pytest.mark.parametrize("deal", ["lpt", "pair", "random"])
def test_equal_structures_are_balanced_and_nothing_is_lost(deal: str) -> None:
    found = simulate(FREE, 0.0, np.ones(BATCH * 8 * 3), 8, deal, "share")
    assert found["balance"] == found["worst_balance"] == found["balance_with_noise"] == pytest.approx(1)
    assert found["efficiency"] == pytest.approx(1)


@pytest.mark.usefixtures("fast_network")
def test_what_is_lost_is_what_ranks_wait_for_the_slowest() -> None:
    costs = FREE.of_structures(read_sizes())
    for deal in ("lpt", "random"):
        found = simulate(FREE, 0.0, costs, 32, deal, "batch")
        # The mean of ratios, and the ratio of means, which batches of nearly equal cost have nearly the same.
        assert found["efficiency"] == pytest.approx(1 / found["balance"], rel=0.02)


@pytest.mark.usefixtures("fast_network")
def test_one_rank_has_nobody_to_wait_for_and_a_part_of_the_batch_does_not_make_the_overhead_less() -> None:
    cost = StepCost(step=1.0, atom=0.0, edge=0.0, angle=0.0)
    costs = np.full(GLOBAL * 2, 1 / GLOBAL)  # the whole batch takes 1 s, and each step 1 s more
    assert simulate(cost, 0.0, costs, 1, "lpt", "batch")["efficiency"] == pytest.approx(1)
    assert simulate(cost, 0.0, costs, 64, "lpt", "batch")["efficiency"] == pytest.approx(2 / (64 * (1 + 1 / 64)))
    assert simulate(cost, 0.0, costs, 64, "lpt", "share")["efficiency"] == pytest.approx(1)


def test_the_more_ranks_the_longer_an_all_reduce_takes_and_alone_none() -> None:
    assert all_reduce(1) == 0
    seconds = [all_reduce(n) for n in (2, 4, 32, 1000)]
    assert seconds == sorted(seconds)
    assert seconds[-1] < 1e-3  # 1.65 MB twice at 10 GB/s, and 20 messages of 20 µs
