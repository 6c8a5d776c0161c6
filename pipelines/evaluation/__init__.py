"""Evaluation of a model: distributed inference over a benchmark's questions, then the scores of `pipelines.scoring`."""

from typing import TYPE_CHECKING

from pipelines.core.lazy import lazy_names

if TYPE_CHECKING:
    from pipelines.scoring.benchmarks import Benchmark, registry
    from pipelines.scoring.estimates import Estimate, Scores
    from pipelines.scoring.score import ScoringConfig, score, score_table

__all__ = ["Benchmark", "Estimate", "Scores", "ScoringConfig", "registry", "score", "score_table"]
__getattr__ = lazy_names(
    "pipelines.scoring",
    {
        **dict.fromkeys(("Benchmark", "registry"), "benchmarks"),
        **dict.fromkeys(("Estimate", "Scores"), "estimates"),
        **dict.fromkeys(("ScoringConfig", "score", "score_table"), "score"),
    },
)
