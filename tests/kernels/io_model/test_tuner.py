"""The tuner: what it measures, what it takes, and how it is compared with measuring everything."""

import pytest

from fastchgnet_kernels.io_model.candidates import Candidate
from fastchgnet_kernels.io_model.tuner import tune


def candidates(predicted: list[float]) -> list[Candidate[int]]:
    return [Candidate(i, seconds, seconds / 2, 2.0, 1.0) for i, seconds in enumerate(predicted)]


class Stopwatch:
    """Gives set times, and remembers what it was asked for."""

    def __init__(self, seconds: list[float | None]) -> None:
        self.seconds, self.asked = seconds, [0] * len(seconds)

    def __call__(self, choices: list[int]) -> list[float | None]:
        for choice in choices:
            self.asked[choice] += 1
        return [self.seconds[choice] for choice in choices]


PREDICTED = [5.0, 1.0, 1.1, 4.0, 3.0, 1.2, 9.0, 8.0, 7.0, 6.0, 5.5]
MEASURED: list[float | None] = [5.0, 1.3, 1.2, 4.0, 3.0, 1.0, 9.0, 8.0, 7.0, 6.0, 5.5]


def test_a_fifth_is_measured_once_and_the_fastest_of_it_taken() -> None:
    watch = Stopwatch(MEASURED)
    tuning = tune(candidates(PREDICTED), watch)
    assert watch.asked == [0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert (tuning.best.candidate.choice, tuning.best.seconds, tuning.n_measured) == (2, 1.2, 2)


def test_exhaustive_search_measures_everything_and_takes_the_fastest() -> None:
    watch = Stopwatch(MEASURED)
    tuning = tune(candidates(PREDICTED), watch, exhaustive=True)
    assert watch.asked == [1] * 11
    assert (tuning.best.candidate.choice, tuning.n_measured) == (5, 11)


def test_the_loss_is_read_off_the_exhaustive_measurement() -> None:
    tuning = tune(candidates(PREDICTED), Stopwatch([seconds and 7 * seconds for seconds in MEASURED]))
    everything = tune(candidates(PREDICTED), Stopwatch(MEASURED), exhaustive=True)
    assert tuning.loss(everything) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="2 was not measured"):
        tuning.loss(tune(candidates(PREDICTED)[3:], Stopwatch(MEASURED)))


def test_all_candidates_are_reported_measured_ones_first() -> None:
    tuning = tune(candidates(PREDICTED), Stopwatch(MEASURED))
    assert [row.candidate.choice for row in tuning.rows] == [2, 1, 5, 4, 3, 0, 10, 9, 8, 7, 6]
    assert {row.bound_ratio for row in tuning.rows} == {2.0}


def test_what_cannot_run_is_not_taken_and_if_nothing_can_the_model_decides() -> None:
    assert tune(candidates(PREDICTED), Stopwatch([None, None, 1.2] + [None] * 8)).best.candidate.choice == 2
    assert tune(candidates(PREDICTED), Stopwatch([None] * 11)).best.candidate.choice == 1


def test_nothing_to_choose_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="no candidate fits"):
        tune([], Stopwatch([]))
