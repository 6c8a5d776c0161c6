"""The interface of a metric: everything that scoring, evaluation and comparison must know about it.

A new metric is one file in this folder that defines a `Metric`, and one line in `catalog.py`. A metric outside the
project calls `catalog.register_metric`.
"""

import dataclasses
import importlib.util
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pipelines.core.errors import UserError
from pipelines.scoring.estimates import Array, Scores
from pipelines.sources.boxes import Size

if TYPE_CHECKING:
    from pipelines.scoring.benchmarks import Benchmark
    from pipelines.scoring.config import ScoringConfig

ReferenceShape = Literal["texts", "label", "box"]
Need = Literal["java", "model"]
FRACTION = (0.0, 1.0)
"""Bounds of a number that is a share."""
_TOLERANCE = 1e-9  # of the bounds: the last bits of sums of floats


@dataclasses.dataclass(frozen=True)
class ScoringInputs:
    """The answers to score, and the choices of how to score them.

    Attributes:
        predictions: (n) answers as text.
        references: (n) by the metric's shape of references: texts: a list of strings each; label: a string each; box:
            x1, y1, x2, y2 each.
        benchmark: the benchmark or task that they answer.
        config: the rules.
        sizes: (n) width and height of the images, None where unknown; None: all unknown.
    """

    predictions: Sequence[str]
    references: Sequence[Any]
    benchmark: "Benchmark"
    config: "ScoringConfig"
    sizes: Sequence[Size | None] | None = None


def _no_needs(config: "ScoringConfig") -> Collection[Need]:
    return ()


@dataclasses.dataclass(frozen=True)
class Metric:
    """A family of numbers that are computed together, for example accuracy, precision and F1 of POPE.

    Attributes:
        name: as benchmarks name it in `benchmarks.yaml`.
        primary: the number that represents the benchmark.
        bounds: (smallest, largest) possible value of each number. `f1[lavis]`, the number by another rule, has the
            bounds of `f1`.
        score: computes the scores; raises ValueError where references or predictions do not fit the metric.
        references: the shape of the references that `score` takes.
        formula: (r, k) sums of the samples' `Scores.outcomes` → (r,) primary number. None: the primary number is the
            mean of `Scores.per_sample`. A comparison resamples images, adds up their rows and applies the formula.
        needs: what `score` needs beyond Python and numpy under a configuration: `java`: a Java on the path; `model`: a
            neural network, and so torch.
    """

    name: str
    primary: str
    bounds: Mapping[str, tuple[float, float]]
    score: Callable[[ScoringInputs], Scores]
    references: ReferenceShape = "texts"
    formula: Callable[[Array], Array] | None = None
    needs: Callable[["ScoringConfig"], Collection[Need]] = _no_needs

    def __post_init__(self) -> None:
        if self.primary not in self.bounds:
            raise ValueError(f"Metric {self.name!r} has no bounds for its primary number {self.primary!r}; add them.")

    @property
    def primary_bounds(self) -> tuple[float, float]:
        """The smallest and the largest possible value of the primary number."""
        return self.bounds[self.primary]

    @property
    def span(self) -> float:
        """The largest possible difference of two values of the primary number."""
        low, high = self.primary_bounds
        return high - low

    def compute(self, inputs: ScoringInputs) -> Scores:
        """Return the scores, checked against what the metric declares.

        Raises:
            UserError: the metric needs something that this machine lacks.
            ValueError: the inputs do not fit the metric.
            TypeError: the scores are not those that the metric declares.
        """
        self.require_needs(inputs.config)
        scores = self.score(inputs)
        self._check(scores)
        return scores

    def require_needs(self, config: "ScoringConfig") -> None:
        """Refuse a configuration that cannot be scored on this machine.

        Raises:
            UserError: names what is missing.
        """
        needs = self.needs(config)
        if "java" in needs and shutil.which("java") is None:
            raise UserError(
                f"The metric {self.name!r} needs Java, which is not on the path. Install a Java, or leave out "
                "scoring.meteor and set scoring.tokenizer to ptb-python."
            )
        if "model" in needs and importlib.util.find_spec("torch") is None:
            raise UserError(f"The metric {self.name!r} needs torch for its model; install requirements.txt.")

    def _check(self, scores: Scores) -> None:
        if (scores.metric, scores.primary) != (self.name, self.primary):
            raise TypeError(
                f"Metric {self.name!r} declares the primary number {self.primary!r}, but its scores are of "
                f"{scores.metric!r} with the primary number {scores.primary!r}."
            )
        if self.formula is not None and scores.outcomes is None:
            raise TypeError(f"Metric {self.name!r} has a formula of summed outcomes, but its scores have no outcomes.")
        for name, estimate in scores.estimates.items():
            low, high = self.bounds.get(name.partition("[")[0], (None, None))
            if low is None or high is None:
                raise TypeError(f"Metric {self.name!r} has no bounds for its number {name!r}; add them.")
            if not low - _TOLERANCE <= estimate.value <= high + _TOLERANCE:
                raise TypeError(
                    f"Metric {self.name!r}: {name} is {estimate.value}, outside its bounds {low} to {high}."
                )
