"""Evaluation of a model: distributed inference over a benchmark's questions, then the scores of `pipelines.scoring`."""
