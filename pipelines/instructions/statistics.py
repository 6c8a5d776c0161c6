"""The counts of the data card: lengths, boxes, tags, examples. Each shard has nested dicts of counts, which add up."""

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

BINS = 20  # of a histogram over [0, 1]
GRID = 10  # cells per side of the heat map of box centers
LIMIT = 128  # tokens that LION reads of a prompt and writes in an answer
EXAMPLES_A_TASK = 6
USUAL = TagRule()
# The prompt of models.lion.LionProcessor.prompt_text, copied so that this step does not load transformers. A test
# compares the two.
PROMPT = "According to <extra_id_0>, you are allowed to use or partially use the following tags: [{tags}]. "


def add(counts: Counts, *path: str, number: int = 1) -> None:
    """Add to the count under a path of keys.

    Args:
        counts: the nested counts, changed in place.
        path: the keys, from the outermost.
        number: what is added.
    """
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
    """Return the sum of nested counts."""
    total: Counts = {}
    for counts in all_counts:
        merge(total, counts)
    return total


class Tokens:
    """A tokenizer that counts tokens. It needs only `tokenizer.json`, and not transformers.

    Args:
        folder: the folder of the tokenizer.
    """

    def __init__(self, folder: str) -> None:
        self._tokenizer = _load(folder)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, without the end token."""
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
    """Return the tags that a prompt lists, from the column `tags` of a row of the tagged table."""
    return [tag for tag, _ in rule.select(tags_from_rows(tags))]


def tag_statistics(tags: Sequence[Sequence[Mapping[str, Any]] | None], rule: TagRule = USUAL) -> Counts:
    """Count the tags per image above the rule's threshold, and all confidences in `BINS` bins."""
    counts: Counts = {}
    for image_tags in tags:
        if image_tags is None:
            add(counts, "untagged")
            continue
        add(counts, "per_image", str(sum(rule.reads(tags_from_rows(image_tags)))))
        for tag in image_tags:
            add(counts, "confidence", str(_bin(tag["score"], BINS)))
    return counts


def box_statistics(boxes: Iterable[Sequence[float]]) -> Counts:
    """Count areas, widths and heights of normalized boxes in `BINS` bins, and centers on a grid of `GRID` x `GRID`."""
    counts: Counts = {}
    for x1, y1, x2, y2 in boxes:
        add(counts, "area", str(_bin((x2 - x1) * (y2 - y1), BINS)))
        add(counts, "width", str(_bin(x2 - x1, BINS)))
        add(counts, "height", str(_bin(y2 - y1, BINS)))
        add(counts, "center", f"{_bin((y1 + y2) / 2, GRID)},{_bin((x1 + x2) / 2, GRID)}")
    return counts


def row_statistics(rows: Sequence[Mapping[str, Any]], tag_tokens: Sequence[int | None], tokenizer: str) -> Counts:
    """Count the boxes of rows of the instructions table and, with a tokenizer, lengths in tokens by task.

    Args:
        rows: the rows.
        tag_tokens: for each row the tokens of the tags that its prompt lists.
        tokenizer: folder of the tokenizer, or empty.
    """
    counts: Counts = {"boxes": box_statistics(box for row in rows for box in _boxes(row))}
    if not tokenizer:
        return counts
    tokens = Tokens(tokenizer)
    (fixed,) = tokens.lengths([PROMPT.replace("{tags}", "")])
    instructions = tokens.lengths([row["instruction"] for row in rows])
    answers = iter(tokens.lengths([answer for row in rows for answer in row["answers"]]))
    for row, length, tags in zip(rows, instructions, tag_tokens, strict=True):
        task = row["task"]
        add(counts, "tokens", task, "instruction", str(length))
        add(counts, "tokens", task, "prompt with tags", str(fixed + (tags or 0) + length))
        for _ in row["answers"]:
            add(counts, "tokens", task, "answer", str(next(answers)))
    return counts


def _boxes(row: Mapping[str, Any]) -> list[Any]:
    """Return the box of a row, or the boxes in the text of a grounded caption."""
    if row["box"]:
        return [row["box"]]
    return (
        [match.box for answer in row["answers"][:1] for match in find_boxes(answer)] if row["level"] == "region" else []
    )


def examples(rows: Sequence[Mapping[str, Any]], uris: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return a few rows of each task with the URIs of their images.

    The smallest hashes of the ids decide, so that the choice is the same however the rows are cut into shards.

    Args:
        rows: rows of the instructions table.
        uris: the image of each.
    """
    by_task: dict[str, list[tuple[bytes, int]]] = {}
    for number, row in enumerate(rows):
        key = blake2b(row["sample_id"].encode(), digest_size=8).digest()
        by_task.setdefault(row["task"], []).append((key, number))
    return {
        task: [
            {**rows[number], "uri": uris[number], "key": key.hex()} for key, number in sorted(keys)[:EXAMPLES_A_TASK]
        ]
        for task, keys in by_task.items()
    }


def describe(histogram: Mapping[str, int]) -> dict[str, float]:
    """Return the mean, median, 99th percentile, maximum and share above `LIMIT` of a histogram of whole numbers."""
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
