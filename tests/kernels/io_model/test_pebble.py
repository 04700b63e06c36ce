"""The bound of a composite algorithm: what a part can hold, against every way to deal out the fast memory."""

import itertools
import math

import pytest

from fastchgnet_kernels.io_model.pebble import Step, largest_part, lower_bound

PRODUCTS = Step(lambda k: k * math.sqrt(k), lambda k: k * math.sqrt(k))
SUMS = Step(lambda k: max(k - 1, 0), lambda k: k / 2)
ROWS = Step(lambda k: 3 * k, lambda k: k)
FIRST_ONLY = Step(lambda k: min(k, 3) ** 2, lambda k: 0.0)
CHAINS = [[PRODUCTS], [PRODUCTS, SUMS], [ROWS, PRODUCTS, SUMS], [FIRST_ONLY, ROWS], [SUMS, ROWS, PRODUCTS, SUMS]]


def by_hand(steps: list[Step], words: int) -> float:
    """The largest sum over all ways to give the steps at most `words` whole words."""
    best = 0.0
    for shares in itertools.product(range(words + 1), repeat=len(steps)):
        if sum(shares) > words:
            continue
        handed = total = 0.0
        for step, share in zip(steps, shares, strict=True):
            total += step.phi(share + handed)
            handed = step.psi(share + handed)
        best = max(best, total)
    return best


@pytest.mark.parametrize("words", [1, 2, 7, 12])
@pytest.mark.parametrize("steps", CHAINS)
def test_the_largest_part_is_the_best_of_all_ways_to_deal_out_the_words(steps: list[Step], words: int) -> None:
    assert largest_part(steps, words) == pytest.approx(by_hand(steps, words), rel=1e-12)


@pytest.mark.parametrize("words", [65, 100, 150])
@pytest.mark.parametrize("steps", CHAINS[:2])
def test_a_part_of_many_words_is_never_too_small_and_at_most_a_twentieth_too_large(
    steps: list[Step], words: int
) -> None:
    """Shares are rounded up by S/64 each: for two steps of at most k^1.5 that is (1 + 2/64)^1.5 = 1.05."""
    exact, found = by_hand(steps, words), largest_part(steps, words)
    assert exact <= found <= 1.05 * exact


def test_a_step_that_is_handed_nothing_gains_nothing() -> None:
    assert largest_part([FIRST_ONLY, ROWS], 4) == max(3 * 4, 1 + 3 * 3, 4 + 3 * 2, 9 + 3)


def test_a_chain_can_be_done_with_less_traffic_than_its_steps_one_after_the_other() -> None:
    """What is handed over on chip is not moved: T of the chain is at least T of every step."""
    chain = largest_part([PRODUCTS, SUMS], 40)
    assert chain >= max(largest_part([PRODUCTS], 40), largest_part([SUMS], 40))


def test_what_fits_on_chip_has_no_bound_and_nothing_is_no_algorithm() -> None:
    assert lower_bound(10, [PRODUCTS], 100) == 0.0
    assert lower_bound(10, [], 100) == 0.0
    assert largest_part([PRODUCTS], 0) == 0.0


def test_the_bound_is_s_times_the_parts_less_one() -> None:
    assert lower_bound(1000, [ROWS], 4) == pytest.approx(4 * (1000 / (3 * 8) - 1))
