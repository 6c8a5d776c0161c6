"""Paired tests of arms that answered the same questions, each trained with several seeds.

What varies. A number moves with the images that happened to be asked about and with the seed of the training; the two
are crossed, since every model answers every question. Arms are compared on the same images and the same seeds, so that
a hard image or a lucky order of samples counts for both.

Method, for a number and for a difference of two numbers alike:

* Images: a bootstrap that draws images with all their questions, the same ones for every arm and seed (paired, by
  clusters; Efron and Tibshirani, An Introduction to the Bootstrap, 1993; for paired comparison of systems: Koehn, EMNLP
  2004). It draws one image fewer than there are, which makes its variance unbiased (Rao and Wu, JASA 83, 1988).
  Metrics that are no means (F1) are computed anew from each draw's sums.
* Seeds: the sample variance of the seeds' numbers over their count. Results of one seed say nothing of another training
  (Bouthillier et al., MLSys 2021).
* Both together: two-way clustering, V = V_images + V_seeds - V_cells (Cameron, Gelbach and Miller, Journal of Business
  and Economic Statistics 29, 2011), where V_cells counts each seed's images as if they were others'; not less than the
  larger of the first two.
* Interval and p-value: Student's t with Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946). With few
  seeds that differ much it is wide: three trainings cannot promise more.
* Power: the difference that such a test would have told from 0 four times of five, (t_0.975 + t_0.8) standard errors.

Several comparisons: Holm's step-down adjustment (Scandinavian Journal of Statistics 6, 1979) over all tasks and arms;
the intervals are each for itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.scoring.estimates import Array

CONFIDENCE = 0.95
POWER = 0.8
"""How often a difference of the size that `smallest_seen` returns is told from 0."""
_CELLS = 4_000_000  # of one block of image weights: 32 MB
FEWEST_IMAGES = 30
"""Below this number of images a bootstrap's variance is not to be relied on; results say so."""


@dataclass(frozen=True)
class Measured:
    """A number of one arm, or a difference of two.

    Attributes:
        seeds: (s,) its value by seed, over all images.
        drawn: (r, s) its values over the images of each draw.
        images: how many images there are.
    """

    seeds: Array
    drawn: Array
    images: int

    def __sub__(self, other: "Measured") -> "Measured":
        """Return the paired difference: both must come from one call of `measure`."""
        return Measured(self.seeds - other.seeds, self.drawn - other.drawn, self.images)

    def seed(self, place: int) -> "Measured":
        """Return the number of one of the trainings alone."""
        return Measured(self.seeds[place : place + 1], self.drawn[:, place : place + 1], self.images)


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval.

    Attributes:
        value: the mean over the seeds.
        low, high: the interval's ends.
        p: two-sided p-value of the number being 0; of use for differences.
    """

    value: float
    low: float
    high: float
    p: float

    def within(self, low: float, high: float) -> "Interval":
        """Return the same with ends that the metric can take."""
        return Interval(self.value, max(self.low, low), min(self.high, high), self.p)


def measure(
    sums: Mapping[str, Array], formula: Callable[[Array], Array], resamples: int, seed: int = 0
) -> dict[str, Measured]:
    """Every arm's number by seed, over all images and over the images of each draw; the draws are the same for all.

    Args:
        sums: arm → (s, g, k) what each of s seeds adds up to on each of g images; the same images and, for
            differences, the same seeds in the same order for every arm.
        formula: (r, k) sums over images → (r,) values.
        resamples: draws r.
        seed: of the draws.

    Raises:
        ValueError: fewer than two images, or arms of different images or of different numbers of seeds.
    """
    trained = {arm: len(by_seed) for arm, by_seed in sums.items()}
    if len(set(trained.values())) > 1:
        raise ValueError(f"The arms have different numbers of seeds: {trained}.")
    sizes = {arm: array.shape[1] for arm, array in sums.items()}
    images = next(iter(sizes.values()))
    if set(sizes.values()) != {images}:
        raise ValueError(f"The arms answered different images: {sizes}.")
    if images < 2:
        raise ValueError("A paired test needs at least two images.")
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[Array]] = {arm: [] for arm in sums}
    block = max(1, _CELLS // images)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        weights = generator.multinomial(images - 1, np.full(images, 1 / images), size=size).astype(np.float64)
        for arm, by_seed in sums.items():
            drawn[arm].append(np.stack([formula(weights @ of_seed) for of_seed in by_seed], axis=1))
    return {
        arm: Measured(formula(by_seed.sum(axis=1)), np.concatenate(drawn[arm]), images) for arm, by_seed in sums.items()
    }


def interval(measured: Measured) -> Interval:
    """The number's mean over the seeds, with its 95 % interval and p-value. See the module's text for the method."""
    from scipy.stats import t

    value = float(measured.seeds.mean())
    error, freedom = _error(measured)
    if error == 0:
        return Interval(value, value, value, 1.0 if value == 0 else 0.0)
    reach = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return Interval(value, value - reach, value + reach, float(2 * t.sf(abs(value) / error, freedom)))


def smallest_seen(measured: Measured) -> float | None:
    """Return the smallest true difference that a test of this much data would tell from 0 in four of five repetitions.

    The standard error holds images and seeds, as the interval's; the test is for itself, before Holm's adjustment. A
    difference that was not shown may still be as large as this. None where nothing varies, so that there is no error.
    """
    from scipy.stats import t

    error, freedom = _error(measured)
    return float(t.ppf((1 + CONFIDENCE) / 2, freedom) + t.ppf(POWER, freedom)) * error if error else None


def _error(measured: Measured) -> tuple[float, float]:
    """The standard error of the mean over the seeds, and Satterthwaite's degrees of freedom; 0 and 1 without spread."""
    seeds = len(measured.seeds)
    of_images = float(measured.drawn.mean(axis=1).var(ddof=1))
    of_cells = float(measured.drawn.var(axis=0, ddof=1).sum()) / seeds**2
    of_seeds = float(measured.seeds.var(ddof=1)) / seeds if seeds > 1 else 0.0
    variance = max(of_images + of_seeds - of_cells, of_images, of_seeds) if seeds > 1 else of_images
    if variance == 0:
        return 0.0, 1.0
    weighed = of_images**2 / (measured.images - 1) + (of_seeds**2 / (seeds - 1) if seeds > 1 else 0.0)
    return variance**0.5, (of_images + of_seeds) ** 2 / weighed


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: rejecting those below α keeps the chance of any false rejection
    below α, however the tests depend on each other."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def ratio_of_sums(sums: Array) -> Array:
    """(r, 2) sums of scores and their counts → (r,) means."""
    return sums[:, 0] / np.maximum(sums[:, 1], 1.0)
