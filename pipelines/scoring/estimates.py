"""The results of metrics: numbers with their sample counts and confidence intervals."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 0
_CELLS = 4_000_000  # largest block of resampling counts, which is 32 MB


@dataclass(frozen=True)
class Estimate:
    """A number over `n` samples with its 95 % percentile bootstrap interval; a fraction, as in the official scorers."""

    value: float
    n: int
    low: float
    high: float

    def as_dict(self) -> dict[str, float | int]:
        """Return the numbers as plain JSON values."""
        return {"value": self.value, "n": self.n, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Scores:
    """The metrics of one task over one list of predictions.

    Attributes:
        metric: the name of the metric that computed them.
        primary: the name of the number that represents the task; `value`, `n`, `low` and `high` are this number's.
        estimates: every number by name.
        counts: numbers of samples by kind (all, empty, unreadable, ...); no sample is left out silently.
        notes: the choices of the computation (the rule, the tokenizer, what the interval covers).
        per_sample: (n,) each sample's contribution to the primary number, in input order, for paired tests.
        outcomes: (n, k) rows whose sums determine the primary number, where it is not the mean of `per_sample`.
    """

    metric: str
    primary: str
    estimates: Mapping[str, Estimate]
    per_sample: Array = field(repr=False, compare=False)
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    outcomes: Array | None = field(default=None, repr=False, compare=False)

    @property
    def value(self) -> float:
        """The primary number."""
        return self.estimates[self.primary].value

    @property
    def n(self) -> int:
        """The number of samples."""
        return self.estimates[self.primary].n

    @property
    def low(self) -> float:
        """The lower end of the primary number's interval."""
        return self.estimates[self.primary].low

    @property
    def high(self) -> float:
        """The upper end of the primary number's interval."""
        return self.estimates[self.primary].high

    def as_dict(self) -> dict[str, Any]:
        """Return everything except the per-sample numbers as plain JSON values."""
        return {
            "metric": self.metric,
            "primary": self.primary,
            "estimates": {name: estimate.as_dict() for name, estimate in self.estimates.items()},
            "counts": dict(self.counts),
            "notes": dict(self.notes),
        }


def bootstrap_of_sums(statistics: Array, estimate: Callable[[Array], Array]) -> Estimate:
    """Return a metric that is a function of sums over samples, with its percentile bootstrap interval.

    Drawing n samples with replacement equals drawing a multinomial over the distinct rows, so that the cost depends on
    the number of distinct rows only: a million right-or-wrong answers cost as much as two.

    Args:
        statistics: (n, k) each sample's contribution to the k sums.
        estimate: (r, k) sums → (r,) metric values.

    Raises:
        ValueError: there are no samples.
    """
    n = len(statistics)
    require_samples(n)
    distinct, multiplicity = np.unique(statistics, axis=0, return_counts=True)
    generator = np.random.default_rng(SEED)
    block = max(1, _CELLS // len(distinct))
    drawn = [
        estimate(generator.multinomial(n, multiplicity / n, size=min(block, RESAMPLES - start)) @ distinct)
        for start in range(0, RESAMPLES, block)
    ]
    low, high = np.quantile(np.concatenate(drawn), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = float(estimate(statistics.sum(axis=0, keepdims=True))[0])
    return Estimate(value, n, float(low), float(high))


def bootstrap_mean(per_sample: Array) -> Estimate:
    """Return the mean of per-sample numbers with its bootstrap interval."""
    n = len(per_sample)
    return bootstrap_of_sums(np.asarray(per_sample, dtype=np.float64).reshape(n, 1), lambda sums: sums[:, 0] / n)


def require_samples(n: int) -> None:
    """Refuse to compute a metric over an empty list.

    Raises:
        ValueError: `n` is 0.
    """
    if not n:
        raise ValueError("There is nothing to score: the list of predictions is empty.")


def require_pairs(predictions: int, references: int) -> None:
    """Refuse lists of different lengths.

    Raises:
        ValueError: they differ, or are empty.
    """
    if predictions != references:
        raise ValueError(f"{predictions} predictions and {references} references; give one reference per prediction.")
    require_samples(predictions)


def safe_ratio(numerator: Array, denominator: Array) -> Array:
    """Return `numerator / denominator`; 0 where the denominator is 0, as the official scorers define empty ratios."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator, dtype=np.float64), where=denominator != 0)


def percent(value: float) -> str:
    """Return a fraction as papers print it: times 100, with two decimals; `-` for NaN."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"
