"""From predictions to numbers: which metric a benchmark means, and the scores of a table of predictions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import UserError
from pipelines.scoring.benchmarks import MIXED, Benchmark, registry
from pipelines.scoring.estimates import Scores
from pipelines.scoring.metrics.answer_rules import VqaRule
from pipelines.scoring.metrics.captions import captions
from pipelines.scoring.metrics.pope import PopeRule, pope
from pipelines.scoring.metrics.rec import rec
from pipelines.scoring.metrics.tokenizers import Tokenizer
from pipelines.scoring.metrics.vqa import aokvqa_direct, exact_match, vqa
from pipelines.sources.boxes import BoxFormat, BoxOrder, BoxScale, Size, read_box

_ANSWER_METRICS = {"aokvqa_direct": aokvqa_direct, "exact_match": exact_match}


@dataclass(frozen=True)
class ScoringConfig:
    """Choices of how answers are scored; every result names them."""

    tokenizer: Tokenizer | None = None
    """`ptb-java` (the official one) or `ptb-python`; empty: Java's where there is a Java."""
    meteor: bool = False
    """Compute METEOR too; needs Java and takes some 15 s to start."""
    vqa: VqaRule = "official"
    """Rule of VQA's soft accuracy: `official` (the VQA code since 2021), `lavis` (the VQA code before 2021, by which
    LION was measured), `lmms_eval` or `vlmevalkit`."""
    pope: PopeRule = "official"
    """Rule of POPE: `official` (what does not say no is a yes, an empty answer too) or `strict` (an empty answer is
    wrong)."""
    compare: bool = False
    """Add the numbers by every other rule, such as `soft_accuracy[lavis]` or `f1[lmms_eval]`."""
    box_scale: BoxScale | None = None
    """What the numbers of predicted boxes are divided by: 1 (shares of the image), 999, 1000 or pixels; auto: 1 where
    the text shows it, else the box is unreadable. Empty: the benchmark's. Pixels need `tagged` for the sizes of the
    images, or true boxes in pixels."""
    box_order: BoxOrder | None = None
    """xyxy: left, top, right, bottom; yxyx: top first, as Gemini writes; xywh: left, top, width, height. Empty: the
    benchmark's."""

    def box_format(self, benchmark: Benchmark) -> BoxFormat:
        """Return how the answers of a benchmark write boxes."""
        return BoxFormat(self.box_scale or benchmark.boxes.scale, self.box_order or benchmark.boxes.order)


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
        config: the rules, and how predictions write boxes.
        sizes: (n) width and height of the images, for boxes in pixels.

    Raises:
        UserError: there is no such benchmark.
        ValueError: the lists do not fit each other or the metric.
    """
    benchmark = registry().find(name)
    config = config or ScoringConfig()
    if benchmark.metric == "rec":
        form = config.box_format(benchmark)
        of_images = sizes or [None] * len(references)
        boxes = [_as_box(*pair, form=form) for pair in zip(references, of_images, strict=True)]
        return rec(predictions, boxes, form, sizes)
    lists = [[reference] if isinstance(reference, str) else list(reference or ()) for reference in references]
    if benchmark.metric == "captions":
        return captions(predictions, lists, config.tokenizer, config.meteor)
    if benchmark.metric == "pope":
        if wrong := next((given for given in lists if len(given) != 1), None):
            raise ValueError(f"A POPE question has one label, yes or no, but one has {wrong}.")
        labels = [given[0] if given else "" for given in lists]
        return pope(predictions, labels, benchmark.questions, config.pope, config.compare)
    if benchmark.metric == "vqa":
        return vqa(predictions, lists, config.vqa, config.compare, benchmark.name)
    return _ANSWER_METRICS[benchmark.metric](predictions, lists, config.compare)


def select_rows(table: pa.Table, name: str) -> pa.Table:
    """Return the rows that a benchmark takes: those of the set of its name, else all of its task.

    Args:
        table: with `sample_id` (`SET:TASK:ID`, as the instructions step writes them, or anything else) and `task`.
        name: a benchmark, a task, or `mixed`, which takes everything.

    Raises:
        UserError: there is no such row.
    """
    if name == MIXED:
        return table
    task = registry().find(name).task
    of_task = table.filter(pc.equal(table["task"], task))
    if not of_task.num_rows:
        there = sorted(set(table["task"].to_pylist()))
        raise UserError(f"{name} needs rows of task {task!r}, but there are only rows of {there}.")
    of_set = of_task.filter(pc.starts_with(of_task["sample_id"], f"{name}:"))
    return of_set if of_set.num_rows else of_task


def score_table(table: pa.Table, name: str, config: ScoringConfig | None = None) -> dict[str, Scores]:
    """Return the scores of a `predictions` table by task, or by `set:task` where a task has rows of several sets.

    A set that bears a benchmark's name is scored as that benchmark; sets are never averaged.

    Args:
        table: of `tables.PREDICTIONS`; `box` is the true box of REC rows, and where it is null the reference text is
            read.
        name: a benchmark, which takes the rows of its set or task; a task; or `mixed`: each by its own metric.
        config: the rules.

    Raises:
        UserError: no row is of the benchmark's task, a task has no metric, or the references do not fit.
    """
    return {key: group.score(config) for key, group in grouped(table, name).items()}


@dataclass(frozen=True)
class Group:
    """Rows of `tables.PREDICTIONS` that are scored together.

    Attributes:
        benchmark: how they are scored.
        rows: the predictions.
        sizes: width and height of the images by their ids, for boxes in pixels; None: unknown.
    """

    benchmark: Benchmark
    rows: Sequence[Mapping[str, Any]]
    sizes: Mapping[str, Size] | None = None

    def score(self, config: ScoringConfig | None = None) -> Scores:
        """Their scores, in the order of the rows.

        Raises:
            UserError: the references do not fit the metric.
        """
        return _score_rows(self.benchmark, self.rows, config, self.sizes)


def grouped(table: pa.Table, name: str, sizes: Mapping[str, Size] | None = None) -> dict[str, Group]:
    """Return the rows of a `predictions` table by task, or by `set:task` where a task has rows of several sets.

    Args:
        table: of `tables.PREDICTIONS`.
        name: a benchmark, a task, or `mixed`.
        sizes: width and height of the images by their ids, for boxes in pixels.

    Raises:
        UserError: no row is of the benchmark's task, or a task has no metric.
    """
    chosen = select_rows(table, name).select(["sample_id", "image_id", "task", "prediction", "box", "references"])
    rows_of: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in chosen.to_pylist():
        rows_of.setdefault((row["task"], set_of(row["sample_id"], row["task"])), []).append(row)
    sets_of_task = Counter(task for task, _ in rows_of)
    groups = {}
    for (task, of_set), rows in rows_of.items():
        key = f"{of_set or 'unnamed'}:{task}" if sets_of_task[task] > 1 else task
        groups[key] = Group(_benchmark_of(task, of_set, name), rows, sizes)
    return groups


def set_of(sample_id: str, task: str) -> str:
    """Return the set of a sample by its id `SET:TASK:ID`; empty where the id is of another form."""
    before, separator, _ = sample_id.partition(f":{task}:")
    return before if separator else ""


def _benchmark_of(task: str, of_set: str, name: str) -> Benchmark:
    if name != MIXED:
        return registry().find(name)
    named = registry().benchmarks.get(of_set)
    return named if named and named.task == task else registry().find(task)


def needs_sizes(name: str, config: ScoringConfig) -> bool:
    """Return whether predicted boxes are in pixels, so that the sizes of the images are of use."""
    chosen = registry().benchmarks.values() if name == MIXED else [registry().find(name)]
    return any(entry.metric == "rec" and config.box_format(entry).scale == "pixels" for entry in chosen)


def _score_rows(
    benchmark: Benchmark,
    rows: Sequence[Mapping[str, Any]],
    config: ScoringConfig | None,
    sizes: Mapping[str, Size] | None,
) -> Scores:
    is_rec = benchmark.metric == "rec"
    references = [row["box"] if is_rec and row["box"] else row["references"] for row in rows]
    if missing := [row["sample_id"] for row, reference in zip(rows, references, strict=True) if not reference]:
        raise UserError(
            f"{len(missing)} of {len(rows)} rows of task {benchmark.task!r} have no references (first: sample_id "
            f"{missing[0]!r}); put them in the column `references`, or name their instructions with --data."
        )
    try:
        of_rows = None if sizes is None else [sizes.get(row["image_id"]) for row in rows]
        return score(benchmark.name, [row["prediction"] for row in rows], references, config, of_rows)
    except ValueError as error:
        raise UserError(f"{benchmark.name}: {error}") from error


def _as_box(reference: Any, size: Size | None, form: BoxFormat) -> Sequence[float]:
    """Return a true box given as numbers, as text or as a list with one text.

    Its text names left, top, right, bottom; where it does not show its scale, it has the scale of the predictions.
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
