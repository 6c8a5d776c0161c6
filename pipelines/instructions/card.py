"""The data card of a build: its content as one HTML page that needs no network."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw

from models.tags import TagRule, threshold_in_words
from pipelines.core import storage
from pipelines.core.shards import ShardSet
from pipelines.core.steps import git_commit
from pipelines.core.tag_rules import table_rule
from pipelines.instructions import images, questions
from pipelines.instructions.charts import HeatMap, Histogram, Table
from pipelines.instructions.config import InstructionsConfig
from pipelines.instructions.statistics import BINS, LIMIT, describe, merge
from pipelines.sources.boxes import find_boxes
from pipelines.sources.embedded import find_embedded
from pipelines.sources.images import BadImage, load_image

EXAMPLES = 20
_TEMPLATE = "card.html.j2"
_SIDE = 300  # pixels of an example's longer side
_COLORS = ("#e5484d", "#3b82f6", "#2f9e44", "#f08c00", "#9c36b5")  # of boxes
_TEXTS = ("instruction", "prompt with tags", "answer")  # whose lengths have a histogram
_BIN_WIDTH, _LENGTH_BINS = 8, 20  # tokens per bar, and bars before the last one, which has all longer texts
_MOST_TAGS = 40  # the last bar of the tags per image has all images with more


def write_card(
    folder: str, config: InstructionsConfig, summaries: Sequence[Mapping[str, Any]], image_counts: Mapping[str, int]
) -> dict[str, Any]:
    """Write `card.html` and return its manifest entries: lengths by task, and the number of leaked images.

    Args:
        folder: the folder of the step, all of whose shards are done.
        config: the settings of the build.
        summaries: the summary of each set, as in the manifest.
        image_counts: the counts of the image index, as in the manifest.
    """
    statistics: dict[str, Any] = {}
    leaked: set[str] = set()
    candidates: dict[str, list[dict[str, Any]]] = {}
    for proof in _proofs(folder, config):
        merge(statistics, proof["statistics"])
        leaked.update(proof["leaked_images"])
        for task, rows in proof["examples"].items():
            candidates[task] = sorted([*candidates.get(task, []), *rows], key=lambda row: str(row["key"]))[:EXAMPLES]
    tags: dict[str, Any] = {}
    for proof in _done(images.shard_set(folder)):
        merge(tags, proof["statistics"])
    tokens = statistics.get("tokens", {})
    lengths = {
        task: {text: describe(histogram) for text, histogram in histograms.items()}
        for task, histograms in sorted(tokens.items())
    }
    rule = table_rule(config.tagged, threshold=config.threshold)
    page = _render(
        config=config,
        commit=git_commit() or "unknown",
        rows=sum(summary["rows"] for summary in summaries),
        sets=_sets(summaries),
        leaks=_leaks(summaries, image_counts, len(leaked)),
        set_aside=_set_aside(summaries),
        limit=LIMIT,
        rule=rule.in_words(),
        lengths=_lengths(lengths),
        length_charts=[_length_chart(text, tokens) for text in _TEXTS],
        boxes=_boxes(statistics.get("boxes", {})),
        tags=_tags(tags, rule),
        examples=_examples(_choose_examples(candidates), config.tagged),
    )
    storage.write_atomic(storage.join(folder, "card.html"), page.encode())
    return {"tokens": lengths, "evaluation_images_in_training": len(leaked)}


def _render(**content: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["number"] = lambda value: f"{value:,}" if isinstance(value, int | float) else value
    return environment.get_template(_TEMPLATE).render(**content)


def _done(shards: ShardSet) -> list[dict[str, Any]]:
    return shards.proofs(sorted(shards.done()))


def _proofs(folder: str, config: InstructionsConfig) -> Iterator[dict[str, Any]]:
    for entry in config.sets:
        if entry.mode != "keep_out":
            yield from _done(questions.shard_set(folder, entry))


def _sets(summaries: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            summary["name"], summary["kind"], summary["mode"], summary["split"] or "–", summary["rows_in"],
            ", ".join(f"{task} {count:,}" for task, count in summary["tasks"].items()), summary["rows"],
        )
        for summary in summaries
    ]  # fmt: skip
    return Table(("set", "format", "mode", "split", "records in", "tasks", "rows"), rows)


def _leaks(summaries: Sequence[Mapping[str, Any]], image_counts: Mapping[str, int], leaked: int) -> dict[str, Any]:
    """Return the counts of evaluation images, and of training rows about them by how the image was recognized."""
    rows = {
        how: sum(summary["evaluation_images"].get(how, 0) for summary in summaries)
        for how in ("id", "same_picture", "content")
    }
    return {"images": image_counts, "leaked": leaked, "rows": {how: count for how, count in rows.items() if count}}


def _set_aside(summaries: Sequence[Mapping[str, Any]]) -> Table:
    rows = [(summary["name"], reason, count) for summary in summaries for reason, count in summary["reasons"].items()]
    rows += [
        (summary["name"], f"left out: {reason}", count)
        for summary in summaries
        for reason, count in summary["left_out"].items()
    ]
    return Table(("set", "reason", "rows"), rows)


def _lengths(lengths: Mapping[str, Any]) -> Table:
    rows = [
        (task, text, numbers["mean"], numbers["median"], numbers["p99"], numbers["max"], f"{numbers['over_128']:.2%}")
        for task, by_text in lengths.items()
        for text, numbers in by_text.items()
    ]
    return Table(("task", "text", "mean", "median", "99 %", "max", f"over {LIMIT}"), rows)


def _length_chart(text: str, tokens: Mapping[str, Any]) -> Histogram:
    """Return the lengths of one kind of text, over all tasks."""
    counts = [0] * (_LENGTH_BINS + 1)
    for histograms in tokens.values():
        for length, count in histograms.get(text, {}).items():
            counts[min(int(length) // _BIN_WIDTH, _LENGTH_BINS)] += count
    return Histogram(text, counts, ("0", f"{_LENGTH_BINS * _BIN_WIDTH}+"))


def _boxes(boxes: Mapping[str, Any]) -> dict[str, Any] | None:
    if not boxes:
        return None
    charts = [
        Histogram(f"{name}, of the image", [boxes[name].get(str(n), 0) for n in range(BINS)], ("0", "1"))
        for name in ("area", "width", "height")
    ]
    total = sum(boxes["area"].values())
    return {"total": total, "charts": charts, "centers": HeatMap("centers in the image", boxes["center"])}


def _tags(tags: Mapping[str, Any], rule: TagRule) -> dict[str, Any] | None:
    per_image = {int(value): count for value, count in tags.get("per_image", {}).items()}
    if not per_image:
        return None
    total = sum(per_image.values())
    mean = sum(value * count for value, count in per_image.items()) / total
    most = min(max(per_image), _MOST_TAGS)
    counts = [0] * (most + 1)
    for value, count in per_image.items():
        counts[min(value, most)] += count
    confidences = [tags.get("confidence", {}).get(str(n), 0) for n in range(BINS)]
    title = f"tags above {threshold_in_words(rule)} per image (mean {mean:.1f})"
    charts = [
        Histogram(title, counts, ("0", str(most))),
        Histogram("confidence of all stored tags", confidences, ("0", "1")),
    ]
    return {"total": total, "charts": charts}


def _choose_examples(candidates: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return up to `EXAMPLES` rows, taken from the tasks in turn, of different images as far as possible."""
    chosen: list[dict[str, Any]] = []
    waiting = {task: list(rows) for task, rows in sorted(candidates.items())}
    seen: set[str] = set()
    while len(chosen) < EXAMPLES and any(waiting.values()):
        for rows in waiting.values():
            if rows and len(chosen) < EXAMPLES:
                new = next((n for n, row in enumerate(rows) if row["image_id"] not in seen), 0)
                chosen.append(rows.pop(new))
                seen.add(chosen[-1]["image_id"])
    return sorted(chosen, key=lambda row: (row["task"], row["key"]))


def _examples(rows: Sequence[Mapping[str, Any]], tagged: str) -> list[dict[str, Any]]:
    """Return the rows with a `picture` (a data URI), or with the `problem` that keeps it from being read."""
    contents = find_embedded(tagged, {row["image_id"] for row in rows})
    examples = []
    for row in rows:
        try:
            picture, problem = _thumbnail(row, contents.get(row["image_id"])), ""
        except BadImage as error:
            picture, problem = "", str(error)
        examples.append({**row, "picture": picture, "problem": problem})
    return examples


def _thumbnail(row: Mapping[str, Any], content: bytes | None) -> str:
    """Return the picture of an example with its boxes drawn, as a data URI.

    Args:
        row: the example.
        content: the encoded image, where the tagged table embeds it; None: read the file.

    Raises:
        BadImage: the image cannot be read.
    """
    picture = load_image(row["uri"], content, draft=2 * _SIDE)
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    in_text = [match.box for text in (row["instruction"], *row["answers"][:1]) for match in find_boxes(text)]
    for number, (x1, y1, x2, y2) in enumerate([row["box"]] if row["box"] else in_text):
        corners = (x1 * picture.width, y1 * picture.height, x2 * picture.width - 1, y2 * picture.height - 1)
        draw.rectangle(corners, outline=_COLORS[number % len(_COLORS)], width=3)
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()
