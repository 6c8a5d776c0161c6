"""Bootstrap intervals: exact values, known widths, the same numbers every time."""

import numpy as np
import pytest

from pipelines.scoring.estimates import bootstrap_mean, bootstrap_of_sums


def test_interval_of_a_proportion_has_the_binomial_width() -> None:
    right = np.repeat([1.0, 0.0], [300, 700])
    estimate = bootstrap_mean(right)
    error = np.sqrt(0.3 * 0.7 / 1000)
    assert estimate.value == pytest.approx(0.3)
    assert estimate.n == 1000
    assert estimate.low == pytest.approx(0.3 - 1.96 * error, abs=0.004)
    assert estimate.high == pytest.approx(0.3 + 1.96 * error, abs=0.004)


def test_interval_of_distinct_numbers_is_that_of_resampled_rows() -> None:
    numbers = np.random.default_rng(1).exponential(size=400)
    drawn = np.random.default_rng(2).integers(0, 400, (4000, 400))
    low, high = np.quantile(numbers[drawn].mean(axis=1), [0.025, 0.975])
    estimate = bootstrap_mean(numbers)
    assert estimate.low == pytest.approx(low, abs=0.02)
    assert estimate.high == pytest.approx(high, abs=0.02)


def test_same_samples_give_the_same_interval_in_any_order() -> None:
    numbers = np.random.default_rng(3).random(50)
    assert bootstrap_mean(numbers) == bootstrap_mean(numbers[::-1])


def test_a_ratio_of_sums_is_not_the_mean_of_ratios() -> None:
    statistics = np.array([[1.0, 1.0], [0.0, 9.0]])
    assert bootstrap_of_sums(statistics, lambda sums: sums[:, 0] / sums[:, 1]).value == pytest.approx(0.1)


def test_a_certain_outcome_has_no_width() -> None:
    estimate = bootstrap_mean(np.ones(20))
    assert (estimate.low, estimate.value, estimate.high) == (1, 1, 1)


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to score"):
        bootstrap_mean(np.array([]))
