"""Paired tests of arms that answered the same questions, each trained with several seeds.

Sources of variance: a metric varies with the sample of test images and with the seed of the training. The two are
crossed, because every model answers every question. Arms are compared on the same images and the same seeds, so a hard
image or a lucky order of samples affects both.

The method is the same for a metric and for a difference of two metrics:

* Images: a paired cluster bootstrap. It draws images with all their questions, the same images for every arm and seed
  (Efron and Tibshirani, An Introduction to the Bootstrap, 1993; for paired comparison of systems: Koehn, EMNLP 2004).
  It draws one image fewer than the sample has, which makes its variance unbiased (Rao and Wu, JASA 83, 1988).
  Metrics that are not means (F1) are computed from the sums of each draw.
* Seeds: the sample variance of the seeds' values, divided by their number. One seed does not show how another training
  would end (Bouthillier et al., MLSys 2021).
* Both together: two-way clustering, V = V_images + V_seeds - V_cells (Cameron, Gelbach and Miller, Journal of Business
  and Economic Statistics 29, 2011). V_cells is the variance if every seed had different images. V is at least the
  larger of V_images and V_seeds.
* Interval and p-value: Student's t with Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946). With few
  seeds that differ much the interval is wide.
* Power: (t_0.975 + t_0.8) standard errors is the true difference that such a test detects with probability 0.8.

Multiple tests: Holm's step-down adjustment (Scandinavian Journal of Statistics 6, 1979) over all tasks and arms.
The intervals are not adjusted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.scoring.estimates import Array

CONFIDENCE = 0.95
POWER = 0.8
"""Probability that a test detects a true difference of the size that `smallest_seen` returns."""
_CELLS = 4_000_000  # numbers in one block of image weights (32 MB), so that memory does not grow with `resamples`
FEWEST_IMAGES = 30
"""Below this number of images the bootstrap's variance is unreliable; the report marks such results."""


@dataclass(frozen=True)
class Measured:
    """A metric of one arm, or the difference of two arms.

    Attributes:
        seeds: (s,) the value by seed, over all images.
        drawn: (r, s) the value by bootstrap draw and seed.
        images: number of images.
    """

    seeds: Array
    drawn: Array
    images: int

    def __sub__(self, other: "Measured") -> "Measured":
        """Return the paired difference. Both must come from the same call of `measure`, which pairs their draws."""
        return Measured(self.seeds - other.seeds, self.drawn - other.drawn, self.images)


@dataclass(frozen=True)
class Interval:
    """A metric, or a difference, with its 95 % interval.

    Attributes:
        value: the mean over the seeds.
        low, high: the ends of the interval.
        p: two-sided p-value of the hypothesis that the value is 0; meaningful for differences only.
    """

    value: float
    low: float
    high: float
    p: float

    def within(self, low: float, high: float) -> "Interval":
        """Return the interval with its ends clipped to the metric's possible values."""
        return Interval(self.value, max(self.low, low), min(self.high, high), self.p)


def measure(
    sums: Mapping[str, Array], formula: Callable[[Array], Array], resamples: int, seed: int = 0
) -> dict[str, Measured]:
    """Return every arm's metric by seed, over all images and over the images of each bootstrap draw.

    The draws are the same for all arms and seeds.

    Args:
        sums: arm → (s, g, k), k statistics for each of s seeds and g images. All arms have the same images and, for
            differences, the same seeds, in the same order.
        formula: (r, k) sums over images → (r,) values of the metric.
        resamples: number of draws r.
        seed: seed of the draws.

    Raises:
        ValueError: there are fewer than two images, or the arms have different images or numbers of seeds.
    """
    counts = {arm: len(by_seed) for arm, by_seed in sums.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"The arms have different numbers of seeds: {counts}.")
    sizes = {arm: array.shape[1] for arm, array in sums.items()}
    images = next(iter(sizes.values()))
    if set(sizes.values()) != {images}:
        raise ValueError(f"The arms have different images, counted by arm: {sizes}.")
    if images < 2:
        raise ValueError(f"There are {images} images; a paired test needs at least two images.")
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[Array]] = {arm: [] for arm in sums}
    block = max(1, _CELLS // images)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        weights = generator.multinomial(images - 1, np.full(images, 1 / images), size=size).astype(np.float64)
        for arm, by_seed in sums.items():
            drawn[arm].append(np.stack([formula(weights @ seed_sums) for seed_sums in by_seed], axis=1))
    return {
        arm: Measured(formula(by_seed.sum(axis=1)), np.concatenate(drawn[arm]), images) for arm, by_seed in sums.items()
    }


def interval(measured: Measured) -> Interval:
    """Return the mean over the seeds with its 95 % interval and p-value, by the method of the module's docstring."""
    from scipy.stats import t

    value = float(measured.seeds.mean())
    error, freedom = _error(measured)
    if error == 0:
        return Interval(value, value, value, 1.0 if value == 0 else 0.0)
    reach = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return Interval(value, value - reach, value + reach, float(2 * t.sf(abs(value) / error, freedom)))


def smallest_seen(measured: Measured) -> float | None:
    """Return the smallest true difference that a test of this much data detects with probability `POWER`.

    The standard error is that of the interval, over images and seeds. The test is not adjusted for other tests. An
    undecided difference may still be as large as this. Return None if nothing varies, so that the error is 0.
    """
    from scipy.stats import t

    error, freedom = _error(measured)
    return float(t.ppf((1 + CONFIDENCE) / 2, freedom) + t.ppf(POWER, freedom)) * error if error else None


def _error(measured: Measured) -> tuple[float, float]:
    """Return the standard error of the mean over the seeds, and Satterthwaite's degrees of freedom; 0 and 1 if nothing
    varies."""
    seeds = len(measured.seeds)
    image_variance = float(measured.drawn.mean(axis=1).var(ddof=1))
    cell_variance = float(measured.drawn.var(axis=0, ddof=1).sum()) / seeds**2
    seed_variance = float(measured.seeds.var(ddof=1)) / seeds if seeds > 1 else 0.0
    variance = (
        max(image_variance + seed_variance - cell_variance, image_variance, seed_variance)
        if seeds > 1
        else image_variance
    )
    if variance == 0:
        return 0.0, 1.0
    denominator = image_variance**2 / (measured.images - 1) + (seed_variance**2 / (seeds - 1) if seeds > 1 else 0.0)
    return variance**0.5, (image_variance + seed_variance) ** 2 / denominator


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order of `p_values`.

    Rejecting those below α keeps the probability of any false rejection below α, also for dependent tests.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def ratio_of_sums(sums: Array) -> Array:
    """Return the means (r,) of (r, 2) sums of scores and counts."""
    return sums[:, 0] / np.maximum(sums[:, 1], 1.0)
