"""The facts about a benchmark that an evaluation needs: its definition, its limits, its prompt, published numbers."""

from typing import Any

import pyarrow as pa

from pipelines.core.errors import UserError
from pipelines.core.tables import PREDICTIONS, to_table
from pipelines.scoring.benchmarks import MIXED, benchmark_table
from pipelines.scoring.config import ScoringConfig
from pipelines.scoring.estimates import Scores
from pipelines.scoring.metrics.catalog import find_metric
from pipelines.scoring.prediction_files import prediction_row
from pipelines.scoring.scorer import score_table


def definition(name: str) -> dict[str, Any]:
    """Return the entries of the table of benchmarks that decide a result: metrics and answer limits.

    They are part of an evaluation's identity: a changed entry makes another result.
    """
    table = benchmark_table()
    entries = {**table.tasks, **table.benchmarks} if name == MIXED else {name: table.find(name)}
    return {
        key: [entry.metric, entry.max_new_tokens, entry.questions, str(entry.boxes)] for key, entry in entries.items()
    }


def answer_limits(name: str, instructions: pa.Table) -> dict[str, int]:
    """Return the largest number of tokens of an answer, by task."""
    table = benchmark_table()
    if name != MIXED:
        benchmark = table.find(name)
        return {benchmark.task: benchmark.max_new_tokens}
    return {task: table.find(task).max_new_tokens for task in sorted(set(instructions["task"].to_pylist()))}


def count_prompts(name: str, instructions: pa.Table) -> dict[str, int]:
    """Return the numbers of questions in the benchmark's wording and in other wordings; empty where it has none."""
    if name == MIXED or benchmark_table().find(name).prompt is None:
        return {}
    asks_like = benchmark_table().find(name).asks_like
    same = sum(asks_like(text) for text in instructions["instruction"].to_pylist())
    return {"asked_in_benchmark_words": same, "asked_in_other_words": instructions.num_rows - same}


def published_numbers(name: str) -> tuple[dict[str, dict[str, float]], str | None]:
    """Return the published numbers by model and metric as fractions, and the rule that they were computed by.

    Both are empty for `mixed`, which is no benchmark with published numbers.
    """
    if name == MIXED:
        return {}, None
    benchmark = benchmark_table().find(name)
    by_model = {
        model: {metric: round(value / 100, 6) for metric, value in numbers.items()}
        for model, numbers in benchmark.published.items()
    }
    return by_model, benchmark.published_rule


def require_scorable(instructions: pa.Table, name: str, scoring: ScoringConfig | None = None) -> dict[str, Scores]:
    """Score empty answers, so that instructions that cannot be scored are refused before a model answers for hours.

    Args:
        instructions: the questions with their true answers.
        name: a benchmark, a task or `mixed`.
        scoring: the rules of the run; their metrics must have everything that they need on this machine.

    Returns:
        The scores of empty answers by group. Their keys are the groups and the numbers of a later evaluation.

    Raises:
        UserError: a task has no metric, the true answers do not fit it, or it needs something that is missing.
    """
    empty = to_table([prediction_row(row, "", None) for row in instructions.to_pylist()], PREDICTIONS)
    try:
        # Empty answers have no boxes. With `auto` their scale needs no sizes of images, which may not be loaded yet.
        groups = score_table(empty, name, ScoringConfig("ptb-python", box_scale="auto"))
    except UserError as error:
        raise UserError(
            f"{error} (The instructions must be made in mode evaluate, which keeps all answers.)"
        ) from error
    for scores in groups.values():
        find_metric(scores.metric).require_needs(scoring or ScoringConfig())
    return groups
