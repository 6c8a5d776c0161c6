"""From predictions to numbers: the scores of a list or of a table of predictions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import UserError
from pipelines.scoring.benchmarks import MIXED, Benchmark, benchmark_table
from pipelines.scoring.config import ScoringConfig
from pipelines.scoring.estimates import Scores
from pipelines.scoring.metrics.catalog import find_metric
from pipelines.scoring.metrics.metric import ReferenceShape, ScoringInputs
from pipelines.sources.boxes import BoxFormat, Size, read_box


def score(
    name: str,
    predictions: Sequence[str],
    references: Sequence[Any],
    config: ScoringConfig | None = None,
    sizes: Sequence[Size | None] | None = None,
) -> Scores:
    """Return the scores of a list of predictions. Needs neither Ray nor torch nor a model.

    Args:
        name: a benchmark (`coco_caption`) or a task (`caption`) of `benchmarks.yaml`.
        predictions: (n) answers as text.
        references: (n) by metric: captions and VQA: a list of strings each; REC: a box x1, y1, x2, y2 in [0, 1] or its
            text; POPE: `yes` or `no`. A single string counts as a list of one.
        config: the rules, and the format of boxes in the predictions.
        sizes: (n) width and height of the images, for boxes in pixels.

    Raises:
        UserError: there is no such benchmark, or its metric needs something that this machine lacks.
        ValueError: the lists do not fit each other or the metric.
    """
    benchmark = benchmark_table().find(name)
    metric = find_metric(benchmark.metric)
    config = config or ScoringConfig()
    shaped = _shaped(metric.references, references, config.box_format(benchmark), sizes)
    return metric.compute(ScoringInputs(predictions, shaped, benchmark, config, sizes))


def _shaped(
    shape: ReferenceShape, references: Sequence[Any], form: BoxFormat, sizes: Sequence[Size | None] | None
) -> list[Any]:
    """Return the references in the shape that the metric takes.

    Raises:
        ValueError: a reference does not have that shape.
    """
    if shape == "box":
        image_sizes = sizes or [None] * len(references)
        return [_as_box(*pair, form=form) for pair in zip(references, image_sizes, strict=True)]
    texts = [[reference] if isinstance(reference, str) else list(reference or ()) for reference in references]
    if shape == "texts":
        return texts
    if wrong := next((labels for labels in texts if len(labels) > 1), None):
        raise ValueError(f"A question of this benchmark has one label, such as yes or no, but a row has {wrong}.")
    return [labels[0] if labels else "" for labels in texts]


def select_rows(table: pa.Table, name: str) -> pa.Table:
    """Return the rows that belong to a benchmark: those of the set of its name, else all of its task.

    Args:
        table: with `sample_id` (`SET:TASK:ID`, as the instructions step writes them, or any other form) and `task`.
        name: a benchmark, a task, or `mixed`, which selects all rows.

    Raises:
        UserError: there is no such row.
    """
    if name == MIXED:
        return table
    task = benchmark_table().find(name).task
    task_rows = table.filter(pc.equal(table["task"], task))
    if not task_rows.num_rows:
        tasks = sorted(set(table["task"].to_pylist()))
        raise UserError(f"{name} needs rows of task {task!r}, but there are only rows of {tasks}.")
    set_rows = task_rows.filter(pc.starts_with(task_rows["sample_id"], f"{name}:"))
    return set_rows if set_rows.num_rows else task_rows


def score_table(table: pa.Table, name: str, config: ScoringConfig | None = None) -> dict[str, Scores]:
    """Return the scores of a `predictions` table by task, or by `set:task` where a task has rows of several sets.

    A set that has a benchmark's name is scored as that benchmark; sets are never averaged.

    Args:
        table: of `tables.PREDICTIONS`; `box` is the true box of REC rows. Where it is null, the reference text is
            parsed.
        name: a benchmark, which selects the rows of its set or task; a task; or `mixed`: each task by its own metric.
        config: the rules.

    Raises:
        UserError: no row is of the benchmark's task, a task has no metric, or the references do not fit.
    """
    return {key: group.score(config) for key, group in grouped(table, name).items()}


@dataclass(frozen=True)
class Group:
    """Rows of `tables.PREDICTIONS` that are scored together.

    Attributes:
        benchmark: decides the metric and the format of boxes.
        rows: the predictions.
        sizes: width and height of the images by their ids, for boxes in pixels; None: unknown.
    """

    benchmark: Benchmark
    rows: Sequence[Mapping[str, Any]]
    sizes: Mapping[str, Size] | None = None

    def score(self, config: ScoringConfig | None = None) -> Scores:
        """Return the scores of the rows, in the order of the rows.

        Raises:
            UserError: the references do not fit the metric.
        """
        references = self._references()
        sizes = None if self.sizes is None else [self.sizes.get(row["image_id"]) for row in self.rows]
        try:
            return score(self.benchmark.name, [row["prediction"] for row in self.rows], references, config, sizes)
        except ValueError as error:
            raise UserError(f"{self.benchmark.name}: {error}") from error

    def _references(self) -> list[Any]:
        takes_boxes = find_metric(self.benchmark.metric).references == "box"
        references = [row["box"] if takes_boxes and row["box"] else row["references"] for row in self.rows]
        if missing := [row["sample_id"] for row, reference in zip(self.rows, references, strict=True) if not reference]:
            raise UserError(
                f"{len(missing)} of {len(self.rows)} rows of task {self.benchmark.task!r} have no references (first: "
                f"sample_id {missing[0]!r}); put them in the column `references`, or name their instructions with "
                "--data."
            )
        return references


def grouped(table: pa.Table, name: str, sizes: Mapping[str, Size] | None = None) -> dict[str, Group]:
    """Return the rows of a `predictions` table by task, or by `set:task` where a task has rows of several sets.

    Args:
        table: of `tables.PREDICTIONS`.
        name: a benchmark, a task, or `mixed`.
        sizes: width and height of the images by their ids, for boxes in pixels.

    Raises:
        UserError: no row is of the benchmark's task, or a task has no metric.
    """
    selected = select_rows(table, name).select(["sample_id", "image_id", "task", "prediction", "box", "references"])
    rows_by_set: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in selected.to_pylist():
        rows_by_set.setdefault((row["task"], set_of(row["sample_id"], row["task"])), []).append(row)
    sets_per_task = Counter(task for task, _ in rows_by_set)
    groups = {}
    for (task, set_name), rows in rows_by_set.items():
        key = f"{set_name or 'unnamed'}:{task}" if sets_per_task[task] > 1 else task
        groups[key] = Group(_benchmark_of(task, set_name, name), rows, sizes)
    return groups


def set_of(sample_id: str, task: str) -> str:
    """Return the set of a sample by its id `SET:TASK:ID`; empty where the id has another form."""
    before, separator, _ = sample_id.partition(f":{task}:")
    return before if separator else ""


def _benchmark_of(task: str, set_name: str, name: str) -> Benchmark:
    table = benchmark_table()
    if name != MIXED:
        return table.find(name)
    named = table.benchmarks.get(set_name)
    return named if named and named.task == task else table.find(task)


def needs_sizes(name: str, config: ScoringConfig) -> bool:
    """Return whether predicted boxes of a benchmark are in pixels, so that the sizes of the images are needed."""
    table = benchmark_table()
    entries = table.benchmarks.values() if name == MIXED else [table.find(name)]
    return any(
        find_metric(entry.metric).references == "box" and config.box_format(entry).scale == "pixels"
        for entry in entries
    )


def _as_box(reference: Any, size: Size | None, form: BoxFormat) -> Sequence[float]:
    """Return a true box as numbers; it may be numbers, text, or a list with one text.

    The text has the order left, top, right, bottom. Where it does not show its scale, it has the scale of the
    predictions.
    """
    if isinstance(reference, Sequence) and len(reference) == 1:
        reference = reference[0]
    if not isinstance(reference, str):
        return list(reference)
    box = read_box(reference)
    if box == "scale_unknown" and (form.scale != "pixels" or size is not None):
        box = read_box(reference, BoxFormat(form.scale), size)
    if isinstance(box, str):
        raise ValueError(f"The reference {reference!r} holds no box that can be read ({box}); REC needs the true box.")
    return box
