"""Evaluation: metrics over lists and tables, without Ray, torch or a model; `run` adds distributed inference."""

from typing import TYPE_CHECKING

from pipelines.core.lazy import lazy_names

if TYPE_CHECKING:
    from pipelines.evaluation.benchmarks import Benchmark, registry
    from pipelines.evaluation.estimates import Estimate, Scores
    from pipelines.evaluation.scoring import ScoringConfig, score, score_table

__all__ = ["Benchmark", "Estimate", "Scores", "ScoringConfig", "registry", "score", "score_table"]
__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("Benchmark", "registry"), "benchmarks"),
        **dict.fromkeys(("Estimate", "Scores"), "estimates"),
        **dict.fromkeys(("ScoringConfig", "score", "score_table"), "scoring"),
    },
)
