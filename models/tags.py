"""An image's tags: their type, and the rule that selects the tags that a prompt or a tag encoder reads.

A tagger stores every tag above a low floor. Training, evaluation and serving select from them by one `TagRule`: by the
tagger's threshold of each tag (RAM has one per tag), or by one number for all tags. The defaults are in this module.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

ScoredTag = tuple[str, float]
"""A tag and its confidence in [0, 1]."""
ImageTags = list[ScoredTag]
"""The tags of one image inside the program. Tables, JSON files and requests contain `tags_to_rows` of them."""
TagOrder = Literal["list", "confidence"]
Threshold = Literal["per_tag"] | float

TOP_K = 40
"""The default for the largest number of tags of an image."""
THRESHOLD = 0.5
"""The default for taggers without thresholds, and for a tag that is not in the tagger's list."""
THRESHOLDS_NAME = "tag_thresholds.json"
"""The file with the thresholds in the folder of a model that selects tags by them."""


@dataclass(frozen=True)
class TagRule:
    """The rule that selects and orders an image's tags.

    Attributes:
        top_k: the largest number of tags, the most confident ones.
        threshold: a tag is selected if its confidence is above (not equal to) this number. ``"per_tag"``: above the
            tag's entry in ``thresholds``, and above `THRESHOLD` for a tag without an entry.
        order: ``"confidence"``: by falling confidence. ``"list"``: in the order of ``thresholds``, as RAM writes tags;
            tags without an entry follow by falling confidence.
        thresholds: the threshold of each tag, in the order of the tagger's list. None if the tagger has none.

    Raises:
        ValueError: a value is out of range, or ``thresholds`` is None and needed.
    """

    top_k: int = TOP_K
    threshold: Threshold = THRESHOLD
    order: TagOrder = "confidence"
    thresholds: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; keep at least one tag.")
        check_threshold(self.threshold)
        if self.order not in get_args(TagOrder):
            raise ValueError(f"tag_order is {self.order!r}; give one of {', '.join(get_args(TagOrder))}.")
        if self.thresholds is None and self.threshold == "per_tag":
            raise ValueError("threshold is 'per_tag', but the tagger of these tags has no thresholds; set a number.")
        if self.thresholds is None and self.order == "list":
            raise ValueError("tag_order is 'list', but the tagger of these tags has no list; set 'confidence'.")

    def limits(self, tags: Sequence[str]) -> np.ndarray:
        """Return the threshold of each tag, (n,) float32."""
        if self.threshold == "per_tag":
            by_tag = self.thresholds or {}
            return np.array([by_tag.get(tag, THRESHOLD) for tag in tags], dtype=np.float32)
        return np.full(len(tags), self.threshold, dtype=np.float32)

    def reads(self, tags: Sequence[ScoredTag]) -> list[bool]:
        """Return for each tag whether its confidence is above its threshold.

        Both are compared as float32, because RAM computes and tables store confidences in float32. As a float64, a
        stored 0.8 would be slightly above the number 0.8.
        """
        scores = np.array([score for _, score in tags], dtype=np.float32)
        above: list[bool] = (scores > self.limits([tag for tag, _ in tags])).tolist()
        return above

    def select(self, tags: Sequence[ScoredTag]) -> list[ScoredTag]:
        """Return the selected tags in order. Tags of equal confidence keep the order of ``tags``.

        Raises:
            ValueError: a confidence is not a number in [0, 1], or a tag is blank.
        """
        for tag, score in tags:
            if not tag.strip():
                raise ValueError(f"A tag with confidence {score} is blank.")
            if math.isnan(score) or not 0.0 <= score <= 1.0:
                raise ValueError(f"The confidence of tag {tag!r} is {score}; it must be a number between 0 and 1.")
        above = [tag for tag, is_read in zip(tags, self.reads(tags), strict=True) if is_read]
        # top_k keeps the most confident tags in either order, so it applies before the list's order.
        surest = sorted(above, key=lambda item: -item[1])[: self.top_k]
        if self.order == "confidence":
            return surest
        return sorted(surest, key=lambda item: self._ranks.get(item[0], len(self._ranks)))

    @cached_property
    def _ranks(self) -> dict[str, int]:
        return {tag: rank for rank, tag in enumerate(self.thresholds or {})}

    def changed(
        self,
        threshold: Threshold | None = None,
        order: TagOrder | None = None,
        thresholds: Mapping[str, float] | None = None,
    ) -> "TagRule":
        """Return a copy of the rule with another threshold or order.

        Args:
            threshold: replaces the rule's threshold; None keeps it.
            order: replaces the rule's order; None keeps it.
            thresholds: the thresholds by tag, used only if the rule has none.
        """
        by_tag = self.thresholds if self.thresholds is not None else thresholds
        changes: dict[str, Any] = {"threshold": threshold, "order": order}
        return replace(self, thresholds=by_tag, **{name: value for name, value in changes.items() if value is not None})

    def in_words(self) -> str:
        """Return the rule as a phrase for logs and reports."""
        order = "in the order of the tagger's list" if self.order == "list" else "by falling confidence"
        return f"at most {self.top_k} tags, each above {threshold_in_words(self)}, {order}"


def make_rule(
    top_k: int | None = None,
    threshold: Threshold | None = None,
    order: TagOrder | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> TagRule:
    """Return the rule for settings of which each may be None for its default.

    Args:
        top_k: None: `TOP_K`.
        threshold: None: ``"per_tag"`` if ``thresholds`` are passed, else `THRESHOLD`.
        order: None: ``"confidence"``.
        thresholds: the threshold of each tag; None if the tagger has none.

    Raises:
        ValueError: a value is out of range, or needs ``thresholds`` that are None.
    """
    if threshold is None:
        threshold = THRESHOLD if thresholds is None else "per_tag"
    return TagRule(TOP_K if top_k is None else top_k, threshold, order or "confidence", thresholds)


def threshold_in_words(rule: TagRule) -> str:
    """Return the threshold as a phrase for logs and reports: ``its own threshold``, or the number."""
    return "its own threshold" if rule.threshold == "per_tag" else f"{rule.threshold:g}"


def check_threshold(threshold: Threshold) -> None:
    """Check the value of a threshold.

    Raises:
        ValueError: the value is neither ``"per_tag"`` nor a number from 0 to 1.
    """
    if isinstance(threshold, str):
        if threshold != "per_tag":
            raise ValueError(f"threshold is {threshold!r}; set 'per_tag' or a number.")
    elif not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold is {threshold}; set 'per_tag' or a number from 0 to 1.")


def tags_from_rows(rows: Iterable[Mapping[str, Any]] | None) -> ImageTags:
    """Return an image's tags from the form of tables, JSON files and requests: ``{"tag": "dog", "score": 0.98}`` each.

    Args:
        rows: the tags of one image; None (an image without tags in a table) gives an empty list.
    """
    return [] if rows is None else [(row["tag"], float(row["score"])) for row in rows]


def tags_to_rows(tags: Iterable[ScoredTag]) -> list[dict[str, Any]]:
    """Return an image's tags as dictionaries, for JSON files, requests and the column `tags` of Arrow tables."""
    return [{"tag": tag, "score": score} for tag, score in tags]


def surest(tags: Sequence[ScoredTag], count: int) -> list[ScoredTag]:
    """Return the ``count`` most confident tags, in the order of ``tags``."""
    ranked = sorted(range(len(tags)), key=lambda position: -tags[position][1])
    return [tags[position] for position in sorted(ranked[:count])]


def parse_thresholds(content: str | bytes, where: str) -> dict[str, float]:
    """Return the thresholds by tag from JSON: an object of tag and number, in the order of the tagger's list.

    Args:
        content: of the file.
        where: the name of the file, for messages.

    Raises:
        ValueError: the content is not such an object.
    """
    try:
        values = json.loads(content)
    except ValueError as error:
        raise ValueError(f'{where} is not JSON ({error}); write an object such as {{"dog": 0.9}}.') from error
    if not isinstance(values, dict) or not values:
        raise ValueError(f'{where} must hold a JSON object of tag and threshold, such as {{"dog": 0.9}}.')
    for tag, value in values.items():
        number = not isinstance(value, bool) and isinstance(value, int | float)
        if not tag.strip() or not number or not 0.0 <= value <= 1.0:
            raise ValueError(f"{where}: the threshold of tag {tag!r} is {value!r}; write a number from 0 to 1.")
    return {tag: float(value) for tag, value in values.items()}


def thresholds_text(thresholds: Mapping[str, float]) -> str:
    """Return thresholds as JSON with one tag per line, for `parse_thresholds`."""
    return json.dumps(dict(thresholds), indent=1, ensure_ascii=False) + "\n"


def load_thresholds(folder: str | os.PathLike[str], name: str = THRESHOLDS_NAME) -> dict[str, float] | None:
    """Return the thresholds in a local folder, or None if the folder has no such file.

    Raises:
        ValueError: the file does not contain thresholds.
    """
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as stream:
        return parse_thresholds(stream.read(), path)


def save_thresholds(
    folder: str | os.PathLike[str], thresholds: Mapping[str, float] | None, name: str = THRESHOLDS_NAME
) -> list[str]:
    """Write thresholds to a local folder and return the paths of the written files. None removes an older file."""
    path = os.path.join(folder, name)
    if thresholds is None:
        if os.path.isfile(path):
            os.remove(path)
        return []
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(thresholds_text(thresholds))
    return [path]
