"""Which of an image's tags are read, and in which order: one rule for training, evaluation and serving.

RAM gives every tag a threshold of its own. `TagRule` applies those, or one number for all tags. Defaults stand here.
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
"""The tags of one image, as a tagger, a processor and a prompt exchange them. Files have `tags_to_rows` of them."""
TagOrder = Literal["list", "confidence"]
Threshold = Literal["per_tag"] | float

TOP_K = 40
THRESHOLD = 0.5
"""For tags whose tagger has no thresholds of its own, and for a tag that is not in the tagger's list."""
THRESHOLDS_NAME = "tag_thresholds.json"
"""The file of thresholds in the folder of a model that reads tags by them."""


@dataclass(frozen=True)
class TagRule:
    """Which of an image's tags are read, and in which order.

    Attributes:
        top_k: most tags of an image, the most confident ones.
        threshold: a tag is read where its confidence is above it (not at it). ``"per_tag"``: above the tag's own of
            ``thresholds``; a tag that is not in there is read above `THRESHOLD`.
        order: ``"list"``: the order of ``thresholds``, as RAM writes tags; other tags follow by falling confidence.
            ``"confidence"``: by falling confidence.
        thresholds: each tag's threshold, in the order of the tagger's list; None where the tagger has none.

    Raises:
        ValueError: a value is out of range, or ``thresholds`` is needed and None.
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
            raise ValueError("threshold is 'per_tag', but these tags have no thresholds of their own; give a number.")
        if self.thresholds is None and self.order == "list":
            raise ValueError("tag_order is 'list', but these tags have no list; give 'confidence'.")

    def limits(self, tags: Sequence[str]) -> np.ndarray:
        """Return the threshold of each tag, (n,) float32."""
        if self.threshold == "per_tag":
            own = self.thresholds or {}
            return np.array([own.get(tag, THRESHOLD) for tag in tags], dtype=np.float32)
        return np.full(len(tags), self.threshold, dtype=np.float32)

    def reads(self, tags: Sequence[ScoredTag]) -> list[bool]:
        """Return for each tag whether its confidence is above its threshold.

        Both are compared as float32, in which RAM computes and tables store confidences: a stored 0.8 is a little more
        than the number 0.8, and still not above it.
        """
        scores = np.array([score for _, score in tags], dtype=np.float32)
        above: list[bool] = (scores > self.limits([tag for tag, _ in tags])).tolist()
        return above

    def select(self, tags: Sequence[ScoredTag]) -> list[ScoredTag]:
        """Return the tags that are read, in order. Equal confidences keep the order of ``tags``.

        Raises:
            ValueError: a confidence is not a number in [0, 1], or a tag is blank.
        """
        for tag, score in tags:
            if not tag.strip():
                raise ValueError(f"A tag with confidence {score} is blank.")
            if math.isnan(score) or not 0.0 <= score <= 1.0:
                raise ValueError(f"The confidence of tag {tag!r} is {score}; it must be a number between 0 and 1.")
        above = [tag for tag, is_read in zip(tags, self.reads(tags), strict=True) if is_read]
        surest = sorted(above, key=lambda item: -item[1])[: self.top_k]
        if self.order == "confidence":
            return surest
        return sorted(surest, key=lambda item: self._places.get(item[0], len(self._places)))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {tag: place for place, tag in enumerate(self.thresholds or {})}

    def changed(
        self,
        threshold: Threshold | None = None,
        order: TagOrder | None = None,
        thresholds: Mapping[str, float] | None = None,
    ) -> "TagRule":
        """Return the rule with another threshold or order; None keeps its own.

        Args:
            threshold: instead of the rule's.
            order: instead of the rule's.
            thresholds: what ``"per_tag"`` and ``"list"`` mean where the rule has no thresholds itself.
        """
        own = self.thresholds if self.thresholds is not None else thresholds
        changes: dict[str, Any] = {"threshold": threshold, "order": order}
        return replace(self, thresholds=own, **{name: value for name, value in changes.items() if value is not None})

    def in_words(self) -> str:
        """Return for people which tags are read."""
        ordered = "in the order of the tagger's list" if self.order == "list" else "by falling confidence"
        return f"at most {self.top_k} tags, each above {threshold_in_words(self)}, {ordered}"


def make_rule(
    top_k: int | None = None,
    threshold: Threshold | None = None,
    order: TagOrder | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> TagRule:
    """Return the rule of settings, None being the default: ``"per_tag"`` where there are thresholds, else `THRESHOLD`.

    Raises:
        ValueError: a value is out of range, or needs thresholds that are not there.
    """
    if threshold is None:
        threshold = THRESHOLD if thresholds is None else "per_tag"
    return TagRule(TOP_K if top_k is None else top_k, threshold, order or "confidence", thresholds)


def threshold_in_words(rule: TagRule) -> str:
    """Return for people which confidence a tag must be above: ``its own threshold``, or the number."""
    return "its own threshold" if rule.threshold == "per_tag" else f"{rule.threshold:g}"


def check_threshold(threshold: Threshold) -> None:
    """Refuse what is no threshold.

    Raises:
        ValueError: it is neither ``"per_tag"`` nor a number from 0 to 1.
    """
    if isinstance(threshold, str):
        if threshold != "per_tag":
            raise ValueError(f"threshold is {threshold!r}; give 'per_tag' or a number.")
    elif not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold is {threshold}; give 'per_tag' or a number from 0 to 1.")


def tags_from_rows(rows: Iterable[Mapping[str, Any]] | None) -> ImageTags:
    """Return an image's tags from the form of tables, JSON files and requests: ``{"tag": "dog", "score": 0.98}`` each.

    Args:
        rows: the tags of one image; None (an image without tags in a table) gives an empty list.
    """
    return [] if rows is None else [(row["tag"], float(row["score"])) for row in rows]


def tags_to_rows(tags: Iterable[ScoredTag]) -> list[dict[str, Any]]:
    """Return what `tags_from_rows` reads; it also fits the column `tags` of Arrow tables."""
    return [{"tag": tag, "score": score} for tag, score in tags]


def surest(tags: Sequence[ScoredTag], count: int) -> list[ScoredTag]:
    """Return the ``count`` most confident tags, in the order that they have."""
    ranked = sorted(range(len(tags)), key=lambda place: -tags[place][1])
    return [tags[place] for place in sorted(ranked[:count])]


def parse_thresholds(content: str | bytes, where: str) -> dict[str, float]:
    """Return the thresholds of a file's content: a JSON object of tag and number, in the order of the tagger's list.

    Raises:
        ValueError: it is something else; `where` is named.
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
            raise ValueError(f"{where}: the threshold of tag {tag!r} is {value!r}; give a number from 0 to 1.")
    return {tag: float(value) for tag, value in values.items()}


def thresholds_text(thresholds: Mapping[str, float]) -> str:
    """Return what `parse_thresholds` reads, a tag a line."""
    return json.dumps(dict(thresholds), indent=1, ensure_ascii=False) + "\n"


def load_thresholds(folder: str | os.PathLike[str], name: str = THRESHOLDS_NAME) -> dict[str, float] | None:
    """Return the thresholds of a local folder's file, None where it has none.

    Raises:
        ValueError: the file holds something else.
    """
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as stream:
        return parse_thresholds(stream.read(), path)


def save_thresholds(
    folder: str | os.PathLike[str], thresholds: Mapping[str, float] | None, name: str = THRESHOLDS_NAME
) -> list[str]:
    """Write thresholds to a local folder; return the file's path. None removes the file of an earlier save."""
    path = os.path.join(folder, name)
    if thresholds is None:
        if os.path.isfile(path):
            os.remove(path)
        return []
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(thresholds_text(thresholds))
    return [path]
