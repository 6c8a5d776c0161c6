"""The report's gallery: the choice of example questions, and their pictures, tags and answers."""

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.tags import TagRule, tags_from_rows
from pipelines.comparison.results import Document, Results
from pipelines.core.parquet import read_parquet
from pipelines.scoring.estimates import Array
from pipelines.scoring.predictions import load_instructions
from pipelines.sources.boxes import Box, parse_box
from pipelines.sources.embedded import find_embedded
from pipelines.sources.images import BadImage, load_image

_SIDE = 320  # pixels of the longer side of a picture on the page
_TAGS = 12  # at most so many tags of an image, by descending confidence


def choose(results: Results, group: str, baseline: str, challengers: Sequence[str], count: int) -> dict[str, list[int]]:
    """Choose the questions of a group that the gallery shows.

    Args:
        results: all evaluations.
        group: the group of questions.
        baseline: name of the baseline arm.
        challengers: names of the other arms.
        count: number of questions in each section.

    Returns:
        Positions of questions within the group, by section of the gallery. `drawn`: a random draw. `worst`: the lowest
        mean score of all arms. `gained ARM` and `lost ARM`: the arm's mean over the seeds is furthest above and below
        the baseline's.
    """
    ids = results.first.groups[group].sample_ids
    # A hash of the ids instead of a generator: the draw stays the same whatever the seed or the order of rows, so the
    # examples cannot be picked. It also breaks ties.
    order = np.array([int(hashlib.blake2b(name.encode(), digest_size=6).hexdigest(), 16) for name in ids], np.float64)
    scores = {arm: results.scores(arm, group) for arm in results.arms}
    chosen = {
        "drawn": _lowest(order, order, count),
        "worst": _lowest(np.mean(list(scores.values()), axis=0), order, count),
    }
    for arm in challengers:
        difference = scores[arm] - scores[baseline]
        for name, sign in (("gained", -1.0), ("lost", 1.0)):
            extremes = _lowest(sign * difference, order, count)
            chosen[f"{name} {arm}"] = [position for position in extremes if sign * difference[position] < 0]
    return chosen


def _lowest(values: Array, tie_breaker: Array, count: int) -> list[int]:
    """Return the positions of the `count` lowest values."""
    return [int(position) for position in np.lexsort((tie_breaker, values))[:count]]


def gallery(
    results: Results,
    chosen: Mapping[str, Mapping[str, Sequence[int]]],
    data: str,
    tagged: str,
    rules: Sequence[TagRule] = (TagRule(),),
) -> dict[str, dict[str, list[Document]]]:
    """Return the chosen questions with picture, tags, boxes, and the answers of the first seed's models.

    Args:
        results: all evaluations.
        chosen: positions of questions within their group, by group and section.
        data: folder of the `instructions` table of the evaluation.
        tagged: folder of the `tagged` table of its images.
        rules: the tag rules of the arms; a tag counts as read if any arm reads it.

    Returns:
        Examples by group and section.
    """
    tables = {arm: read_parquet(results.of(arm)[0].folder, "predictions") for arm in results.arms}
    instructions = load_instructions(data)
    images = read_parquet(tagged, "tagged", ["image_id", "uri", "tags"])
    sections: dict[str, dict[str, list[Document]]] = {}
    for group, lists in chosen.items():
        task = group.rpartition(":")[2]
        ids = results.first.groups[group].sample_ids
        positions = {position for section in lists.values() for position in section}
        sample_ids = {ids[position] for position in positions}
        questions = _rows(instructions, "sample_id", sample_ids, task)
        pictures = _rows(images, "image_id", {row["image_id"] for row in questions.values()})
        contents = find_embedded(tagged, pictures.keys())
        predictions = {arm: _rows(table, "sample_id", sample_ids, task) for arm, table in tables.items()}
        scores = {arm: results.scores(arm, group) for arm in results.arms}
        examples = {}
        for position in positions:
            question = questions[ids[position]]
            answers = {
                arm: (rows[ids[position]]["prediction"], float(scores[arm][position]))
                for arm, rows in predictions.items()
            }
            image_id = question["image_id"]
            examples[position] = _example(question, pictures[image_id], contents.get(image_id), answers, rules)
        sections[group] = {why: [examples[position] for position in section] for why, section in lists.items()}
    return sections


def _rows(table: pa.Table, key: str, values: set[str], task: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the rows whose `key` column is in `values`, by that key. Sample ids are unique only within a task."""
    selected = pc.is_in(table[key], value_set=pa.array(sorted(values), pa.string()))
    if task is not None:
        selected = pc.and_(selected, pc.equal(table["task"], task))
    return {row[key]: row for row in table.filter(selected).to_pylist()}


def _example(
    question: Mapping[str, Any],
    image: Mapping[str, Any],
    content: bytes | None,
    answers: Mapping[str, tuple[str, float]],
    rules: Sequence[TagRule],
) -> Document:
    is_box = bool(question["box"])
    try:
        picture, problem = _picture(image["uri"], content), None
    except BadImage as error:
        picture, problem = None, f"{error.reason}: {error.detail}"
    return {
        "sample_id": question["sample_id"],
        "instruction": question["instruction"],
        "references": list(dict.fromkeys(question["answers"] or ())),
        "picture": picture,
        "problem": problem,
        "tags": _tags(image, rules),
        "true_box": _corners(question["box"]) if is_box else None,
        "answers": [
            {
                "arm": arm,
                "text": text,
                "score": score,
                "box": _corners(parsed.box) if is_box and (parsed := parse_box(text)) else None,
            }
            for arm, (text, score) in answers.items()
        ],
    }


def _tags(image: Mapping[str, Any], rules: Sequence[TagRule]) -> list[tuple[str, float, bool]]:
    """Return the first tags of an image as (tag, confidence, whether any arm reads it)."""
    pairs = tags_from_rows(image["tags"])[:_TAGS]
    read = [any(by_rule) for by_rule in zip(*(rule.reads(pairs) for rule in rules), strict=True)]
    return [(tag, score, is_read) for (tag, score), is_read in zip(pairs, read, strict=True)]


def _corners(box: Sequence[float] | Box) -> dict[str, float]:
    """Return a box (x1, y1, x2, y2 in [0, 1]) as an SVG rectangle on a canvas of 100 x 100."""
    x1, y1, x2, y2 = (100 * value for value in box)
    return {"x": round(x1, 2), "y": round(y1, 2), "width": round(x2 - x1, 2), "height": round(y2 - y1, 2)}


def _picture(uri: str, content: bytes | None) -> str:
    """Return the image as a data URI; `content` is its file's bytes if the table embeds them."""
    picture = load_image(uri, content, draft=2 * _SIDE)
    picture.thumbnail((_SIDE, _SIDE))
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()
