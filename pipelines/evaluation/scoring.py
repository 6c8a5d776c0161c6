"""From predictions to numbers: which metric a benchmark means, and the scores of a table of predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.boxes import parse_box
from pipelines.errors import UserError
from pipelines.evaluation.benchmarks import MIXED, Benchmark, registry
from pipelines.evaluation.estimates import Scores
from pipelines.evaluation.metrics.captions import captions
from pipelines.evaluation.metrics.pope import pope
from pipelines.evaluation.metrics.rec import rec
from pipelines.evaluation.metrics.tokenisers import Tokeniser
from pipelines.evaluation.metrics.vqa import aokvqa_direct, exact_match, vqa

_ANSWER_METRICS = {"vqa": vqa, "aokvqa_direct": aokvqa_direct, "exact_match": exact_match}


@dataclass(frozen=True)
class ScoringConfig:
    """Choices of how captions are scored; every result names them."""

    tokeniser: Tokeniser | None = None
    """`ptb-java` (the official one) or `ptb-python`; empty: Java's where there is a Java."""
    meteor: bool = False
    """Compute METEOR too; needs Java and takes some 15 s to start."""


def score(
    name: str,
    predictions: Sequence[str],
    references: Sequence[Any],
    config: ScoringConfig | None = None,
) -> Scores:
    """The scores of a list of predictions. Needs neither Ray nor torch nor a model.

    Args:
        name: a benchmark (`coco_caption`) or a task (`caption`) of `benchmarks.yaml`.
        predictions: (n) answers as text.
        references: (n) by metric: captions and VQA: a list of strings each; REC: a box x1, y1, x2, y2 in [0, 1] or its
            text; POPE: `yes` or `no`. A single string counts as a list of one.
        config: how captions are scored.

    Raises:
        UserError: there is no such benchmark.
        ValueError: the lists do not fit each other or the metric.
    """
    benchmark = registry().find(name)
    config = config or ScoringConfig()
    if benchmark.metric == "rec":
        return rec(predictions, [_as_box(reference) for reference in references])
    lists = [[reference] if isinstance(reference, str) else list(reference or ()) for reference in references]
    if benchmark.metric == "captions":
        return captions(predictions, lists, config.tokeniser, config.meteor)
    if benchmark.metric == "pope":
        if wrong := next((given for given in lists if len(given) != 1), None):
            raise ValueError(f"A POPE question has one label, yes or no, but one has {wrong}.")
        return pope(predictions, [given[0] if given else "" for given in lists], benchmark.questions)
    return _ANSWER_METRICS[benchmark.metric](predictions, lists)


def score_table(table: pa.Table, name: str, config: ScoringConfig | None = None) -> dict[str, Scores]:
    """The scores of a `predictions` table by task.

    Args:
        table: of `tables.PREDICTIONS`; `box` is the true box of REC rows, and where it is null the reference text is
            read.
        name: a benchmark, which takes the rows of its task; a task; or `mixed`: each task by its own metric.
        config: how captions are scored.

    Raises:
        UserError: no row is of the benchmark's task, a task has no metric, or the references do not fit.
    """
    by_task: dict[str, list[dict[str, Any]]] = {}
    for row in table.select(["sample_id", "task", "prediction", "box", "references"]).to_pylist():
        by_task.setdefault(row["task"], []).append(row)
    if name != MIXED:
        benchmark = registry().find(name)
        if benchmark.task not in by_task:
            raise UserError(f"{name} needs rows of task {benchmark.task!r}, but there are only {sorted(by_task)}.")
        return {benchmark.task: _score_rows(benchmark, by_task[benchmark.task], config)}
    return {task: _score_rows(registry().find(task), rows, config) for task, rows in by_task.items()}


def _score_rows(benchmark: Benchmark, rows: Sequence[Mapping[str, Any]], config: ScoringConfig | None) -> Scores:
    is_rec = benchmark.metric == "rec"
    references = [row["box"] if is_rec and row["box"] else row["references"] for row in rows]
    if missing := [row["sample_id"] for row, reference in zip(rows, references, strict=True) if not reference]:
        raise UserError(
            f"{len(missing)} of {len(rows)} rows of task {benchmark.task!r} have no references (first: sample_id "
            f"{missing[0]!r}); put them in the column `references`, or name their instructions with --data."
        )
    try:
        return score(benchmark.name, [row["prediction"] for row in rows], references, config)
    except ValueError as error:
        raise UserError(f"{benchmark.name}: {error}") from error


def _as_box(reference: Any) -> Sequence[float]:
    """A true box given as numbers, as text or as a list with one text."""
    if isinstance(reference, Sequence) and len(reference) == 1:
        reference = reference[0]
    if not isinstance(reference, str):
        return list(reference)
    parsed = parse_box(reference)
    if parsed is None:
        raise ValueError(f"The reference {reference!r} holds no box; REC needs the true box.")
    return parsed.box
