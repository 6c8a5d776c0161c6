"""Scores of predictions: benchmarks, metrics, intervals. Needs neither Ray nor torch nor a model."""

from typing import TYPE_CHECKING

from pipelines.core.lazy import lazy_names

if TYPE_CHECKING:
    from pipelines.scoring.benchmarks import Benchmark, benchmark_table, register_benchmark
    from pipelines.scoring.config import ScoringConfig
    from pipelines.scoring.estimates import Estimate, Scores
    from pipelines.scoring.metrics.catalog import find_metric, register_metric
    from pipelines.scoring.metrics.metric import Metric, ScoringInputs
    from pipelines.scoring.scorer import score, score_table

__all__ = [
    "Benchmark", "Estimate", "Metric", "Scores", "ScoringConfig", "ScoringInputs", "benchmark_table", "find_metric",
    "register_benchmark", "register_metric", "score", "score_table",
]  # fmt: skip
__getattr__ = lazy_names(
    "pipelines.scoring",
    {
        **dict.fromkeys(("Benchmark", "benchmark_table", "register_benchmark"), "benchmarks"),
        "ScoringConfig": "config",
        **dict.fromkeys(("Estimate", "Scores"), "estimates"),
        **dict.fromkeys(("find_metric", "register_metric"), "metrics.catalog"),
        **dict.fromkeys(("Metric", "ScoringInputs"), "metrics.metric"),
        **dict.fromkeys(("score", "score_table"), "scorer"),
    },
)
