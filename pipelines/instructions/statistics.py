"""What a build counts on its way, shard by shard: lengths, boxes, tags, examples. Plain nested counts that add up."""

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from models.tags import TagRule, tags_from_rows
from pipelines.core import storage
from pipelines.sources.boxes import find_boxes

Counts = dict[str, Any]
"""Numbers by key, at any depth."""

BINS = 20
GRID = 10
LIMIT = 128  # LION's tokens of a prompt, and of an answer
EXAMPLES_A_TASK = 6
USUAL = TagRule()
# LION's prompt (models.lion.LionProcessor.prompt_text); a test holds the two together.
PROMPT = "According to <extra_id_0>, you are allowed to use or partially use the following tags: [{tags}]. "


def add(counts: Counts, *path: str, number: int = 1) -> None:
    """Add to the number under a path of keys."""
    for key in path[:-1]:
        counts = counts.setdefault(key, {})
    counts[path[-1]] = counts.get(path[-1], 0) + number


def merge(into: Counts, other: Mapping[str, Any]) -> Counts:
    """Add other counts to `into`, key by key, and return it."""
    for key, value in other.items():
        if isinstance(value, Mapping):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = into.get(key, 0) + value
    return into


def merged(all_counts: Iterable[Mapping[str, Any]]) -> Counts:
    """Return the sum of counts."""
    total: Counts = {}
    for counts in all_counts:
        merge(total, counts)
    return total


class Tokens:
    """Lengths of texts in tokens, by a tokenizer's `tokenizer.json` alone.

    Args:
        folder: of the tokenizer.
    """

    def __init__(self, folder: str) -> None:
        self._tokenizer = _load(folder)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, its end mark not counted."""
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]


@functools.lru_cache(maxsize=2)
def _load(folder: str) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a task has one CPU
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(storage.read_bytes(storage.join(folder, "tokenizer.json")).decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def usual_tags(tags: Sequence[Mapping[str, Any]] | None, rule: TagRule = USUAL) -> list[str]:
    """Return the tags that a prompt lists, of a row of the tagged table."""
    return [tag for tag, _ in rule.select(tags_from_rows(tags))]


def tag_statistics(tags: Sequence[Sequence[Mapping[str, Any]] | None], rule: TagRule = USUAL) -> Counts:
    """How many tags images have above the rule's threshold, and all confidences in twentieths."""
    counts: Counts = {}
    for of_image in tags:
        if of_image is None:
            add(counts, "untagged")
            continue
        add(counts, "per_image", str(sum(rule.reads(tags_from_rows(of_image)))))
        for tag in of_image:
            add(counts, "confidence", str(_bin(tag["score"], BINS)))
    return counts


def box_statistics(boxes: Iterable[Sequence[float]]) -> Counts:
    """Areas, widths and heights in twentieths of the image, and centers on a grid of 10 x 10."""
    counts: Counts = {}
    for x1, y1, x2, y2 in boxes:
        add(counts, "area", str(_bin((x2 - x1) * (y2 - y1), BINS)))
        add(counts, "width", str(_bin(x2 - x1, BINS)))
        add(counts, "height", str(_bin(y2 - y1, BINS)))
        add(counts, "center", f"{_bin((y1 + y2) / 2, GRID)},{_bin((x1 + x2) / 2, GRID)}")
    return counts


def row_statistics(rows: Sequence[Mapping[str, Any]], tag_tokens: Sequence[int | None], tokenizer: str) -> Counts:
    """Of rows of the instructions table: boxes, and with a tokenizer lengths by task.

    Args:
        rows: the rows.
        tag_tokens: tokens of the usual tags of each row's image.
        tokenizer: its folder, or empty.
    """
    counts: Counts = {"boxes": box_statistics(box for row in rows for box in _boxes(row))}
    if not tokenizer:
        return counts
    tokens = Tokens(tokenizer)
    (fixed,) = tokens.lengths([PROMPT.replace("{tags}", "")])
    asked = tokens.lengths([row["instruction"] for row in rows])
    answered = iter(tokens.lengths([answer for row in rows for answer in row["answers"]]))
    for row, length, tags in zip(rows, asked, tag_tokens, strict=True):
        task = row["task"]
        add(counts, "tokens", task, "instruction", str(length))
        add(counts, "tokens", task, "prompt with tags", str(fixed + (tags or 0) + length))
        for _ in row["answers"]:
            add(counts, "tokens", task, "answer", str(next(answered)))
    return counts


def _boxes(row: Mapping[str, Any]) -> list[Any]:
    """Return the row's own box, or those that a grounded caption says."""
    if row["box"]:
        return [row["box"]]
    return (
        [found.box for answer in row["answers"][:1] for found in find_boxes(answer)] if row["level"] == "region" else []
    )


def examples(rows: Sequence[Mapping[str, Any]], uris: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return a few rows of each task, chosen by a hash of their ids, with where their images are."""
    chosen: dict[str, list[tuple[bytes, int]]] = {}
    for place, row in enumerate(rows):
        key = blake2b(row["sample_id"].encode(), digest_size=8).digest()
        chosen.setdefault(row["task"], []).append((key, place))
    return {
        task: [{**rows[place], "uri": uris[place], "key": key.hex()} for key, place in sorted(found)[:EXAMPLES_A_TASK]]
        for task, found in chosen.items()
    }


def describe(histogram: Mapping[str, int]) -> dict[str, float]:
    """Mean, median, 99th percentile, maximum and share above LIMIT of a histogram of whole numbers."""
    pairs = sorted((int(value), count) for value, count in histogram.items())
    total = sum(count for _, count in pairs)
    return {
        "mean": round(sum(value * count for value, count in pairs) / total, 2),
        "median": _quantile(pairs, total, 0.5),
        "p99": _quantile(pairs, total, 0.99),
        "max": pairs[-1][0],
        "over_128": round(sum(count for value, count in pairs if value > LIMIT) / total, 6),
    }


def _quantile(pairs: Sequence[tuple[int, int]], total: int, share: float) -> int:
    seen = 0
    for value, count in pairs:
        seen += count
        if seen >= share * total:
            return value
    return pairs[-1][0]


def _bin(value: float, bins: int) -> int:
    return min(max(int(value * bins), 0), bins - 1)
