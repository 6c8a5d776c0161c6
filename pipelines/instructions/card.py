"""The data card of a build: what is in it, as one HTML page that needs no network."""

import base64
import html
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
from pipelines.instructions.charts import bars, heat, table
from pipelines.instructions.config import InstructionsConfig
from pipelines.instructions.statistics import BINS, LIMIT, describe, merge
from pipelines.sources.boxes import find_boxes
from pipelines.sources.embedded import find_embedded
from pipelines.sources.images import BadImage, load_image

EXAMPLES = 20
_SIDE = 300  # pixels of an example's longer side
_COLORS = ("#e5484d", "#3b82f6", "#2f9e44", "#f08c00", "#9c36b5")
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #4c78c9; --dim: #777; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
p.note, td.note, figcaption .dim { color: var(--dim); }
table { border-collapse: collapse; margin: .6rem 0; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
 td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.row { display: flex; flex-wrap: wrap; gap: 1.6rem; } figure { margin: 0; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 1.4rem; }
.examples img { max-width: 100%; border-radius: 4px; } .examples figcaption { overflow-wrap: anywhere; }
.task { display: inline-block; background: var(--bar); color: #fff; border-radius: 3px; padding: 0 .4rem; }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; } svg rect.bar { fill: var(--bar); }
"""


def write_card(
    folder: str, config: InstructionsConfig, summaries: Sequence[Mapping[str, Any]], image_counts: Mapping[str, int]
) -> dict[str, Any]:
    """Write `card.html` and return what of it belongs in the manifest: leaked images, and lengths by task.

    Args:
        folder: the step's folder, every shard of it done.
        config: the build's configuration.
        summaries: of the sets, as the manifest has them.
        image_counts: of the index of images.
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
    lengths = {
        task: {what: describe(histogram) for what, histogram in of_task.items()}
        for task, of_task in sorted(statistics.get("tokens", {}).items())
    }
    rule = table_rule(config.tagged, threshold=config.threshold)
    parts = [
        _head(config, summaries),
        _sets(summaries),
        _set_aside(summaries, image_counts, len(leaked), config),
        _lengths(lengths, statistics.get("tokens", {}), rule),
        _boxes(statistics.get("boxes", {})),
        _tags(tags, rule),
        _examples(_spread(candidates), config.tagged),
    ]
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>Data card</title><style>{_STYLE}</style>"
    storage.write_atomic(storage.join(folder, "card.html"), (page + "".join(parts) + "</html>\n").encode())
    return {"tokens": lengths, "evaluation_images_in_training": len(leaked)}


def _done(shards: ShardSet) -> list[dict[str, Any]]:
    return shards.proofs(sorted(shards.done()))


def _proofs(folder: str, config: InstructionsConfig) -> Iterator[dict[str, Any]]:
    for entry in config.sets:
        if entry.mode != "keep_out":
            yield from _done(questions.shard_set(folder, entry))


def _head(config: InstructionsConfig, summaries: Sequence[Mapping[str, Any]]) -> str:
    rows = sum(summary["rows"] for summary in summaries)
    facts = (
        f"seed {config.seed} · boxes in {config.notation} notation · evaluation images: {config.evaluation_images} · "
        f"code {git_commit() or 'unknown'}"
    )
    return f"<h1>Instruction data: {rows:,} rows of {len(summaries)} sets</h1><p class=note>{html.escape(facts)}</p>"


def _sets(summaries: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            summary["name"], summary["kind"], summary["mode"], summary["split"] or "–", summary["rows_in"],
            ", ".join(f"{task} {count:,}" for task, count in summary["tasks"].items()), summary["rows"],
        )
        for summary in summaries
    ]  # fmt: skip
    note = (
        "<p class=note>A record of a file gives a row a task; an image's captions give one each in training. Training "
        "and evaluation have phrasings of their own.</p>"
    )
    return "<h2>Sets</h2>" + table(("set", "format", "mode", "split", "records in", "tasks", "rows"), rows) + note


def _set_aside(
    summaries: Sequence[Mapping[str, Any]], image_counts: Mapping[str, int], leaked: int, config: InstructionsConfig
) -> str:
    rows = [(summary["name"], reason, count) for summary in summaries for reason, count in summary["reasons"].items()]
    rows += [
        (summary["name"], f"left out: {reason}", count)
        for summary in summaries
        for reason, count in summary["left_out"].items()
    ]
    found = [
        f"{how} {count:,}" for how in ("id", "same_picture", "content")
        if (count := sum(summary["evaluation_images"].get(how, 0) for summary in summaries))
    ]  # fmt: skip
    verb = "kept out" if config.evaluation_images == "keep_out" else "left in"
    told = (
        f"<p>{image_counts['evaluation']:,} images belong to evaluation splits ({image_counts['evaluation_digests']:,} "
        f"also known by content). Training rows about {leaked:,} of them were {verb} "
        f"({', '.join(found) or 'none'}).</p>"
    )
    if image_counts["unreadable"]:
        told += f"<p>{image_counts['unreadable']:,} tagged images could not be read again to be compared.</p>"
    listed = table(("set", "reason", "rows"), rows) if rows else "<p>Nothing was quarantined.</p>"
    return f"<h2>Set aside, and evaluation images</h2>{told}{listed}"


def _lengths(lengths: Mapping[str, Any], histograms: Mapping[str, Any], rule: TagRule) -> str:
    head = "<h2>Lengths in tokens</h2>"
    if not lengths:
        return f"{head}<p class=note>No tokenizer was given (--tokenizer).</p>"
    rows = [
        (task, what, one["mean"], one["median"], one["p99"], one["max"], f"{one['over_128']:.2%}")
        for task, of_task in lengths.items()
        for what, one in of_task.items()
    ]
    note = (
        f"<p class=note>LION reads {LIMIT} tokens of a prompt and writes up to {LIMIT}. A prompt with tags "
        f"({rule.in_words()}) that is longer loses its least sure tags, not the question; an answer that is "
        "longer is cut.</p>"
    )
    charts = []
    for what in ("instruction", "prompt with tags", "answer"):
        total: dict[str, int] = {}
        for of_task in histograms.values():
            merge(total, of_task.get(what, {}))
        width = 8
        counts = [0] * 21
        for value, count in total.items():
            counts[min(int(value) // width, 20)] += count
        charts.append(bars(what, counts, ("0", str(20 * width) + "+")))
    columns = ("task", "text", "mean", "median", "99 %", "max", f"over {LIMIT}")
    return f"{head}{table(columns, rows)}<div class=row>{''.join(charts)}</div>{note}"


def _boxes(boxes: Mapping[str, Any]) -> str:
    if not boxes:
        return ""
    charts = [
        bars(f"{name}, of the image", [boxes[name].get(str(place), 0) for place in range(BINS)], ("0", "1"))
        for name in ("area", "width", "height")
    ]
    total = sum(boxes["area"].values())
    return f"<h2>Boxes: {total:,}</h2><div class=row>{''.join(charts)}{heat(boxes['center'])}</div>"


def _tags(tags: Mapping[str, Any], rule: TagRule) -> str:
    per_image = {int(value): count for value, count in tags.get("per_image", {}).items()}
    if not per_image:
        return "<h2>Tags</h2><p>The images have no tags.</p>"
    total = sum(per_image.values())
    mean = sum(value * count for value, count in per_image.items()) / total
    most = min(max(per_image), 40)
    counts = [
        sum(count for value, count in per_image.items() if min(value, most) == place) for place in range(most + 1)
    ]
    sure = [tags.get("confidence", {}).get(str(place), 0) for place in range(BINS)]
    charts = bars(f"tags above {threshold_in_words(rule)} per image (mean {mean:.1f})", counts, ("0", str(most)))
    charts += bars("confidence of all stored tags", sure, ("0", "1"))
    return f"<h2>Tags of {total:,} images</h2><div class=row>{charts}</div>"


def _spread(candidates: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Up to twenty rows, one task after the other, different images first."""
    chosen: list[dict[str, Any]] = []
    waiting = {task: list(rows) for task, rows in sorted(candidates.items())}
    seen: set[str] = set()
    while len(chosen) < EXAMPLES and any(waiting.values()):
        for rows in waiting.values():
            if rows and len(chosen) < EXAMPLES:
                place = next((place for place, row in enumerate(rows) if row["image_id"] not in seen), 0)
                chosen.append(rows.pop(place))
                seen.add(chosen[-1]["image_id"])
    return sorted(chosen, key=lambda row: (row["task"], row["key"]))


def _examples(rows: Sequence[Mapping[str, Any]], tagged: str) -> str:
    contents = find_embedded(tagged, {row["image_id"] for row in rows})
    figures = "".join(_example(row, contents.get(row["image_id"])) for row in rows)
    return f"<h2>{len(rows)} examples</h2><div class=examples>{figures}</div>"


def _example(row: Mapping[str, Any], content: bytes | None) -> str:
    answers = row["answers"][:3]
    more = f" <span class=dim>(+ {len(row['answers']) - 3} more)</span>" if len(row["answers"]) > 3 else ""
    said = " <span class=dim>|</span> ".join(html.escape(answer) for answer in answers) + more
    try:
        picture = f'<img alt="" src="{_thumbnail(row, content)}">'
    except BadImage as error:
        picture = f"<p class=note>{html.escape(str(error))}</p>"
    asked = html.escape(row["instruction"])
    return (
        f"<figure>{picture}<figcaption><span class=task>{row['task']}</span> <b>{asked}</b><br>{said}"
        f"<br><span class=dim>{html.escape(row['sample_id'])}</span></figcaption></figure>"
    )


def _thumbnail(row: Mapping[str, Any], content: bytes | None) -> str:
    """Return the picture with its boxes as a data URI, from its bytes where the tagged table embeds them."""
    picture = load_image(row["uri"], content, draft=2 * _SIDE)
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    found = [box.box for text in (row["instruction"], *row["answers"][:1]) for box in find_boxes(text)]
    for place, (x1, y1, x2, y2) in enumerate([row["box"]] if row["box"] else found):
        corners = (x1 * picture.width, y1 * picture.height, x2 * picture.width - 1, y2 * picture.height - 1)
        draw.rectangle(corners, outline=_COLORS[place % len(_COLORS)], width=3)
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()
