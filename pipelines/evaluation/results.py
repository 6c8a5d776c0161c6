"""The files of a finished evaluation: the scores of each sample, and the numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipelines.core import storage
from pipelines.core.parquet import write_file
from pipelines.core.steps import StepFolder
from pipelines.core.tables import SCORES, to_table
from pipelines.evaluation.benchmark import published_numbers
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.shards import image_sizes
from pipelines.scoring.estimates import Scores
from pipelines.scoring.scorer import Group, grouped, needs_sizes

METRICS = "metrics.json"
"""The numbers with their intervals, counts and rules."""
SAMPLE_SCORES = "scores.parquet"
"""Each sample's contribution to its group's primary number, of `tables.SCORES`."""


def write_results(
    config: EvaluateConfig,
    folder: StepFolder,
    predictions: pa.Table,
    counts: Mapping[str, int],
    decoding: Mapping[str, Any] | None,
    files: Sequence[Mapping[str, Any]] = (),
    tags_read: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Score predictions, write `scores.parquet` and `metrics.json`, and return the manifest's entries.

    Args:
        config: the benchmark and the rules.
        folder: the step's folder.
        predictions: of `tables.PREDICTIONS`.
        counts: numbers of samples by kind, copied into the metrics.
        decoding: the effective settings of decoding; None: unknown.
        files: entries of other files of the result.
        tags_read: the rules by which the model read tags; None without a model.
    """
    pixels = config.tagged and needs_sizes(config.benchmark, config.scoring)
    groups = grouped(predictions, config.benchmark, image_sizes(config.tagged) if pixels and config.tagged else None)
    scores = {key: group.score(config.scoring) for key, group in groups.items()}
    write_file(folder.child(SAMPLE_SCORES), to_table(_sample_scores(groups, scores), SCORES))
    rows_left_out = predictions.num_rows - sum(group.n for group in scores.values())
    published, published_rule = published_numbers(config.benchmark)
    document = {
        "benchmark": config.benchmark,
        "model_versions": sorted({version for version in predictions["model_version"].to_pylist() if version}),
        "decoding": decoding,
        "rows": predictions.num_rows,
        "counts": dict(counts) | ({"rows_left_out": rows_left_out} if rows_left_out else {}),
        "tasks": {key: group.as_dict() for key, group in scores.items()},
        "tags_read": tags_read,
        "published": published,
        "published_rule": published_rule,
    }
    storage.write_json(folder.child(METRICS), document)
    digests = [{"path": name, "sha256": storage.sha256(folder.child(name))} for name in (SAMPLE_SCORES, METRICS)]
    entries = {
        "rows": predictions.num_rows,
        "files": [*files, *digests],
        "decoding": decoding,
        "summary": _summary(scores, counts),
    }
    return entries if tags_read is None else {**entries, "tags_read": tags_read}


def _sample_scores(groups: Mapping[str, Group], scores: Mapping[str, Scores]) -> Iterator[dict[str, Any]]:
    """Yield the rows of `tables.SCORES`."""
    for key, group in groups.items():
        samples = scores[key].per_sample.tolist()
        outcomes = scores[key].outcomes
        outcome_rows = [None] * len(samples) if outcomes is None else outcomes.tolist()
        for row, score, outcome in zip(group.rows, samples, outcome_rows, strict=True):
            yield {
                "group": key, "sample_id": row["sample_id"], "image_id": row["image_id"], "score": score,
                "outcomes": outcome,
            }  # fmt: skip


def _summary(scores: Mapping[str, Scores], counts: Mapping[str, int]) -> dict[str, Any]:
    """Return the JSON line of the step: the primary number of each task, the counts, and all numbers in `metrics`."""
    return {
        **{f"{task}.{group.primary}": group.value for task, group in scores.items()},
        **{name: count for name, count in counts.items() if count},
        "metrics": {
            task: {name: estimate.value for name, estimate in group.estimates.items()} for task, group in scores.items()
        },
    }
