"""Who gets which structures: every one once, equal counts, nearly equal work, the same batches however many ranks."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ase_fastchgnet.training.balance import DEALS, BalancedBatchSampler, Deal, deal_lpt, deal_pairs
from ase_fastchgnet.training.cost import TYPICAL, StepCost, fit

SIZES = Path(__file__).parents[2] / "benchmarks" / "data" / "mp_sizes.npz"
ALL: list[Deal] = ["lpt", "pair", "random"]


def costs_of_crystals() -> NDArray[np.float64]:
    with np.load(SIZES) as data:
        return TYPICAL.of_structures(np.stack([data[name] for name in ("atoms", "edges", "angles")], axis=1))


def samplers(n: int, batch_size: int, n_ranks: int, deal: Deal = "lpt", seed: int = 0) -> list[BalancedBatchSampler]:
    costs = np.random.default_rng(9).lognormal(sigma=0.9, size=n)
    return [
        BalancedBatchSampler(costs, batch_size=batch_size, n_ranks=n_ranks, rank=rank, deal=deal, seed=seed)
        for rank in range(n_ranks)
    ]


@pytest.mark.parametrize("deal", ALL)
@settings(max_examples=60, deadline=None)
@given(
    costs=st.lists(st.floats(0, 1e3), min_size=1, max_size=80),
    n_ranks=st.integers(1, 9),
)
def test_everything_is_dealt_once_in_counts_that_differ_by_one_at_most(
    deal: Deal, costs: list[float], n_ranks: int
) -> None:
    shares = DEALS[deal](np.array(costs), n_ranks)
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(costs)))
    counts = [len(share) for share in shares]
    assert max(counts) - min(counts) <= 1


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 200), batch_size=st.integers(1, 9), n_ranks=st.integers(1, 9))
def test_an_epoch_has_every_structure_once_and_no_rank_is_left_without(n: int, batch_size: int, n_ranks: int) -> None:
    if n < n_ranks:
        return
    epochs = [list(sampler) for sampler in samplers(n, batch_size, n_ranks)]
    assert {len(epoch) for epoch in epochs} == {len(samplers(n, batch_size, n_ranks)[0])}
    lengths = {len(batch) for epoch in epochs for batch in epoch}
    assert min(lengths) >= 1
    assert max(lengths) <= batch_size
    used = sorted(index for epoch in epochs for batch in epoch for index in batch)
    assert len(set(used)) == len(used)
    # With one structure for each rank a batch cannot be smaller, so what is left over has to be left out.
    assert len(used) == n if batch_size > 1 else n - len(used) < n_ranks


@pytest.mark.parametrize("deal", ALL)
def test_batches_over_all_ranks_are_those_of_one_process(deal: Deal) -> None:
    alone = [sorted(batch) for batch in samplers(100, 24, 1)[0]]
    for n_ranks in (2, 4, 8):
        shares = zip(*samplers(100, 24 // n_ranks, n_ranks, deal), strict=True)
        assert [sorted(index for share in batch for index in share) for batch in shares] == alone


def test_epochs_and_seeds_have_orders_of_their_own_and_the_same_ones_again() -> None:
    (first,), (again,), (other,) = samplers(50, 7, 1), samplers(50, 7, 1), samplers(50, 7, 1, seed=1)
    zero = list(first)
    assert zero == list(first) == list(again)
    assert zero != list(other)
    first.set_epoch(3)
    assert zero != list(first)
    again.set_epoch(3)
    assert list(first) == list(again)


@pytest.mark.parametrize("deal", ALL)
def test_training_that_was_interrupted_goes_on_with_the_next_batch(deal: Deal) -> None:
    sampler, resumed = samplers(60, 5, 2, deal)
    sampler.set_epoch(2)
    expected = list(sampler)
    for _ in range(4):
        sampler.advance()
    fresh = samplers(60, 5, 2, deal)[0]
    fresh.load_state_dict(sampler.state_dict())
    fresh.set_epoch(2)  # the loop names the epoch before it goes on
    assert list(fresh) == expected[4:]
    resumed.load_state_dict(sampler.state_dict())
    assert len(list(resumed)) == len(expected) - 4
    fresh.set_epoch(3)
    assert len(list(fresh)) == len(expected)


def test_fetching_ahead_does_not_move_the_place_from_which_training_goes_on() -> None:
    (sampler,) = samplers(60, 5, 1)
    batches = iter(sampler)
    first, second = next(batches), next(batches)
    sampler.advance()
    (fresh,) = samplers(60, 5, 1)
    fresh.load_state_dict(sampler.state_dict())
    assert next(iter(fresh)) == second != first


def test_a_run_may_go_on_with_another_number_of_ranks_but_not_with_other_batches() -> None:
    state = samplers(60, 6, 2)[0].state_dict()
    samplers(60, 3, 4)[0].load_state_dict(state)
    with pytest.raises(ValueError, match="global_batch 12, now 6"):
        samplers(60, 6, 1)[0].load_state_dict(state)
    with pytest.raises(ValueError, match=r"structures 60, now 61.*; seed 0, now 5"):
        samplers(61, 6, 2, seed=5)[0].load_state_dict(state)


def test_counting_past_the_end_of_an_epoch_is_refused() -> None:
    (sampler,) = samplers(10, 5, 1)
    sampler.advance()
    sampler.advance()
    assert list(sampler) == []
    with pytest.raises(ValueError, match="only 2 batches"):
        sampler.advance()


def balance(deal: Deal, n_ranks: int, batch_size: int) -> float:
    """Mean over the batches of an epoch of (largest share / mean share), real sizes."""
    costs = costs_of_crystals()
    sampler = BalancedBatchSampler(costs, batch_size=batch_size, n_ranks=n_ranks)
    found = []
    for chosen in sampler.global_batches()[:50]:
        loads = [costs[chosen[share]].sum() for share in DEALS[deal](costs[chosen], n_ranks)]
        found.append(max(loads) / np.mean(loads))
    return float(np.mean(found))


def test_32_ranks_of_16_real_crystals_are_balanced_within_five_percent() -> None:
    assert balance("lpt", 32, 16) <= 1.05


def test_lpt_is_better_than_pairs_which_are_better_than_chance() -> None:
    lpt, pair, chance = (balance(deal, 8, 16) for deal in ALL)
    assert 1 <= lpt < pair < chance


def test_pairs_are_of_large_and_small() -> None:
    shares = deal_pairs(np.array([1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0]), 2)
    assert [share.tolist() for share in shares] == [[1, 0, 5, 4], [3, 2, 7, 6]]


def test_lpt_gives_the_most_expensive_first_to_whoever_has_least() -> None:
    shares = deal_lpt(np.array([5.0, 4.0, 3.0, 3.0, 1.0, 1.0]), 2)
    assert [share.tolist() for share in shares] == [[0, 3, 5], [1, 2, 4]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1, "n_ranks": 2, "rank": 2}, "rank=2 of n_ranks=2"),
        ({"batch_size": 1, "n_ranks": 5}, "4 structures are too few for 5 ranks"),
        ({"batch_size": 1, "deal": "fair"}, "'lpt', 'pair', 'random'"),
    ],
)
def test_what_cannot_be_dealt_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BalancedBatchSampler([1.0] * 4, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="finite"):
        BalancedBatchSampler([1.0, float("nan")], batch_size=1)


def test_the_cost_of_a_step_is_found_from_measured_ones() -> None:
    random = np.random.default_rng(1)
    truth = StepCost(step=0.02, atom=3e-5, edge=2e-5, angle=4e-5)
    sizes = random.integers(100, 20_000, (40, 3))
    seconds = [truth.seconds(size) * random.uniform(0.99, 1.01) for size in sizes]
    found = fit(sizes, seconds)
    for size, measured in zip(sizes, seconds, strict=True):
        assert found.seconds(size) == pytest.approx(measured, rel=0.03)
    for name in ("atom", "edge", "angle"):
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=0.1)


def test_no_term_of_a_fitted_cost_is_negative() -> None:
    sizes = np.array([[10, 100, 50], [20, 100, 50], [10, 300, 80]])
    found = fit(sizes, [2.0, 1.0, 3.0])
    assert min(found.step, found.atom, found.edge, found.angle) >= 0


def test_a_step_costs_what_its_structures_add_to_it() -> None:
    sizes = np.array([[8, 300, 200], [2, 90, 0], [50, 3000, 9000]])
    assert TYPICAL.seconds(sizes) == pytest.approx(TYPICAL.step + TYPICAL.of_structures(sizes).sum())
