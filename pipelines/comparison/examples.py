"""The report's gallery: which questions are shown, and with what."""

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

_SIDE = 320  # pixels of a picture's longer side
_TAGS = 12  # the surest tags of an image that are shown


def choose(results: Results, group: str, baseline: str, challengers: Sequence[str], count: int) -> dict[str, list[int]]:
    """Which questions of a group are shown, by why; the question's place in the group.

    `drawn` is a draw by a fixed hash of the ids: nobody picked them. `worst` are those that all arms together did worst
    on. `gained` and `lost` are those where a challenger's mean over the seeds is most above and below the baseline's.
    Ties are broken by the same hash.
    """
    ids = results.first.groups[group].sample_ids
    chance = np.array([int(hashlib.blake2b(name.encode(), digest_size=6).hexdigest(), 16) for name in ids], np.float64)
    scores = {arm: results.scores(arm, group) for arm in results.arms}
    chosen = {
        "drawn": _lowest(chance, chance, count),
        "worst": _lowest(np.mean(list(scores.values()), axis=0), chance, count),
    }
    for arm in challengers:
        difference = scores[arm] - scores[baseline]
        for name, sign in (("gained", -1.0), ("lost", 1.0)):
            found = _lowest(sign * difference, chance, count)
            chosen[f"{name} {arm}"] = [place for place in found if sign * difference[place] < 0]
    return chosen


def _lowest(values: Array, chance: Array, count: int) -> list[int]:
    return [int(place) for place in np.lexsort((chance, values))[:count]]


def gallery(
    results: Results,
    chosen: Mapping[str, Mapping[str, Sequence[int]]],
    data: str,
    tagged: str,
    rules: Sequence[TagRule] = (TagRule(),),
) -> dict[str, dict[str, list[Document]]]:
    """The chosen questions with their picture, tags, answers of the first seed's models, and boxes, by group and why.

    Args:
        results: all evaluations.
        chosen: by group and why, places in the group.
        data: the instructions that were asked.
        tagged: where their images and tags are.
        rules: by which the arms read tags: a tag counts as read where any of them reads it.
    """
    tables = {arm: read_parquet(results.of(arm)[0].folder, "predictions") for arm in results.arms}
    instructions = load_instructions(data)
    images = read_parquet(tagged, "tagged", ["image_id", "uri", "tags"])
    shown: dict[str, dict[str, list[Document]]] = {}
    for group, lists in chosen.items():
        task = group.rpartition(":")[2]
        ids = results.first.groups[group].sample_ids
        places = {place for chosen_places in lists.values() for place in chosen_places}
        wanted = {ids[place] for place in places}
        questions = _rows(instructions, "sample_id", wanted, task)
        pictures = _rows(images, "image_id", {row["image_id"] for row in questions.values()})
        contents = find_embedded(tagged, pictures.keys())
        said = {arm: _rows(table, "sample_id", wanted, task) for arm, table in tables.items()}
        scores = {arm: results.scores(arm, group) for arm in results.arms}
        made = {}
        for place in places:
            question = questions[ids[place]]
            answers = {arm: (said[arm][ids[place]]["prediction"], float(scores[arm][place])) for arm in said}
            image_id = question["image_id"]
            made[place] = _example(question, pictures[image_id], contents.get(image_id), answers, rules)
        shown[group] = {why: [made[place] for place in chosen_places] for why, chosen_places in lists.items()}
    return shown


def _rows(table: pa.Table, key: str, wanted: set[str], task: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the wanted rows by their key; ids of samples are unique within a task only."""
    kept = pc.is_in(table[key], value_set=pa.array(sorted(wanted), pa.string()))
    if task is not None:
        kept = pc.and_(kept, pc.equal(table["task"], task))
    return {row[key]: row for row in table.filter(kept).to_pylist()}


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
    """Return the surest tags of an image with their confidences, and whether they are read."""
    pairs = tags_from_rows(image["tags"])[:_TAGS]
    read = [any(of_tag) for of_tag in zip(*(rule.reads(pairs) for rule in rules), strict=True)]
    return [(tag, score, is_read) for (tag, score), is_read in zip(pairs, read, strict=True)]


def _corners(box: Sequence[float] | Box) -> dict[str, float]:
    """Return a box as an SVG rectangle on a canvas of 100 x 100."""
    x1, y1, x2, y2 = (100 * value for value in box)
    return {"x": round(x1, 2), "y": round(y1, 2), "width": round(x2 - x1, 2), "height": round(y2 - y1, 2)}


def _picture(uri: str, content: bytes | None) -> str:
    """Return the image as a data URI, from its bytes where the table embeds them."""
    picture = load_image(uri, content, draft=2 * _SIDE)
    picture.thumbnail((_SIDE, _SIDE))
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()
