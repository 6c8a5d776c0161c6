"""Scores of predictions: benchmarks, metrics, intervals. Needs neither Ray nor torch nor a model."""
