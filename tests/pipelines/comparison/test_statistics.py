"""Paired tests: exact cases, coverage of the intervals, power, and Holm's adjustment."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from pipelines.comparison.statistics import POWER, Interval, holm, interval, measure, ratio_of_sums, smallest_seen
from pipelines.scoring.estimates import Array
from pipelines.scoring.metrics.pope import f1


def means(scores: Array) -> Array:
    """Return the sums (s, g, 2) of scores (s, g): the score itself and a count of 1."""
    return np.stack([scores, np.ones_like(scores)], axis=2)


def difference(first: Array, second: Array, resamples: int = 2000) -> Interval:
    measured = measure({"a": means(first), "b": means(second)}, ratio_of_sums, resamples)
    return interval(measured["a"] - measured["b"])


def test_the_value_is_the_mean_over_seeds_and_images() -> None:
    scores = np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    measured = measure({"a": means(scores)}, ratio_of_sums, 200)["a"]
    assert measured.seeds.tolist() == [pytest.approx(2 / 3), 1.0]
    assert interval(measured).value == pytest.approx(5 / 6)


def test_with_one_seed_it_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    hard = generator.normal(0, 1, 80)  # shared by both arms: a paired test is not affected by it
    first, second = hard + generator.normal(0.1, 0.3, 80), hard + generator.normal(0, 0.3, 80)
    measured = difference(first[None], second[None], resamples=20_000)
    expected = ttest_rel(first, second)
    low, high = expected.confidence_interval()
    assert measured.p == pytest.approx(expected.pvalue, rel=0.15)
    assert (measured.low, measured.high) == (pytest.approx(low, abs=0.003), pytest.approx(high, abs=0.003))


def test_an_image_with_many_questions_counts_once_as_an_image() -> None:
    scores = np.random.default_rng(1).random((1, 40))
    few, many = means(scores), means(scores) * 25.0  # 25 questions an image, all answered alike
    alone, together = (interval(measure({"a": sums}, ratio_of_sums, 2000)["a"]) for sums in (few, many))
    assert (together.low, together.high) == (pytest.approx(alone.low), pytest.approx(alone.high))


def test_seeds_that_differ_make_the_interval_wide() -> None:
    generator = np.random.default_rng(2)
    images = generator.normal(0, 0.05, (1, 200))
    alike = difference(0.5 + images + np.zeros((3, 1)), np.zeros((3, 200)))
    apart = difference(0.5 + images + np.array([[-0.3], [0.0], [0.3]]), np.zeros((3, 200)))
    assert alike.value == pytest.approx(apart.value)
    assert alike.p < 1e-6
    assert apart.low < 0 < apart.high  # three seeds from 0.2 to 0.8 do not show that another would be above 0


@pytest.mark.parametrize("seeds, between_seeds", [(3, 0.1), (3, 0.0), (1, 0.0)])
def test_95_of_100_intervals_hold_the_truth(seeds: int, between_seeds: float) -> None:
    generator = np.random.default_rng(3)
    covered = []
    for _ in range(200):
        truth = generator.normal(0, 0.3, (1, 40)) + generator.normal(0, between_seeds, (seeds, 1))
        scores = truth + generator.normal(0, 0.4, (seeds, 40))
        estimate = interval(measure({"a": means(scores)}, ratio_of_sums, 150)["a"])
        covered.append(estimate.low <= 0 <= estimate.high)
    assert 0.91 <= np.mean(covered) <= 1.0


@pytest.mark.parametrize("seeds, between_seeds", [(3, 0.0), (5, 0.06)])
def test_a_difference_of_the_smallest_size_is_seen_four_times_of_five(seeds: int, between_seeds: float) -> None:
    generator = np.random.default_rng(4)

    def drawn(difference: float) -> Array:
        image = generator.normal(0, 0.3, (1, 60)) + generator.normal(0, between_seeds, (seeds, 1))
        return difference + image + generator.normal(0, 0.4, (seeds, 60))

    smallest = np.median([smallest_seen(measure({"a": means(drawn(0.0))}, ratio_of_sums, 150)["a"]) for _ in range(60)])
    seen = [interval(measure({"a": means(drawn(smallest))}, ratio_of_sums, 150)["a"]).p < 0.05 for _ in range(200)]
    assert POWER - 0.12 <= np.mean(seen) <= POWER + 0.12


def test_arms_of_different_numbers_of_seeds_are_not_compared() -> None:
    with pytest.raises(ValueError, match=r"different numbers of seeds: \{'a': 3, 'b': 1\}"):
        difference(np.ones((3, 5)), np.zeros((1, 5)))


def test_f1_is_computed_anew_from_each_draw() -> None:
    outcomes = np.array([[[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0]]])
    measured = measure({"a": outcomes}, f1, 500)["a"]
    assert measured.seeds[0] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert measured.drawn.min() == 0.0  # draws without a true positive
    assert measured.drawn.max() == 1.0


@given(st.integers(2, 12), st.integers(1, 4), st.randoms(use_true_random=False))
def test_an_arm_does_not_differ_from_itself_and_both_directions_agree(images: int, seeds: int, random: object) -> None:
    generator = np.random.default_rng(random.randrange(2**32))  # type: ignore[attr-defined]
    first, second = generator.integers(0, 2, (2, seeds, images)).astype(float)
    same = difference(first, first, 100)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    forward, reverse = difference(first, second, 100), difference(second, first, 100)
    assert (forward.value, forward.low, forward.p) == (-reverse.value, -reverse.high, reverse.p)
    assert forward.low <= forward.value <= forward.high


def test_fewer_than_two_images_and_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two images"):
        difference(np.ones((1, 1)), np.zeros((1, 1)))
    with pytest.raises(ValueError, match="have different images"):
        difference(np.ones((1, 3)), np.zeros((1, 4)))


def test_holm_as_in_its_paper() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= p_holm <= 1 for p, p_holm in zip(p_values, adjusted, strict=True))
    by_p = [p_holm for _, p_holm in sorted(zip(p_values, adjusted, strict=True))]
    assert by_p == sorted(by_p)
