"""Evaluation: metrics over lists and tables, without Ray, torch or a model; `run` adds distributed inference."""

from pipelines.evaluation.benchmarks import Benchmark, registry
from pipelines.evaluation.estimates import Estimate, Scores
from pipelines.evaluation.scoring import ScoringConfig, score, score_table

__all__ = ["Benchmark", "Estimate", "Scores", "ScoringConfig", "registry", "score", "score_table"]
