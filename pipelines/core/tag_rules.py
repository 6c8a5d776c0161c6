"""Thresholds of tags: those of tables, those of trained models, and their description in manifests.

A tagger's thresholds are stored in the folder of its table as `_tag_thresholds.json`, so that a copy of the folder
includes them. A model's folder has the thresholds with which the model was trained.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.lion.prompts import prompt_design
from models.tags import THRESHOLD, THRESHOLDS_NAME, TagOrder, TagRule, Threshold, make_rule, parse_thresholds
from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.steps import digest_of

TABLE_THRESHOLDS = "_tag_thresholds.json"
"""Name of the file in a table's folder. Readers of Parquet folders (pyarrow, Spark) skip names that begin with `_`."""
_PROCESSOR = "processor_config.json"
_OF_THE_ENCODER = "tag_encoder_thresholds.json"


@dataclasses.dataclass(frozen=True)
class ModelRules:
    """Rules by which a LION selects an image's tags.

    Attributes:
        text: the rule for the prompt's text.
        vector: the rule for the vectors of a dynamic prompt; None if the prompt has no such vectors.
    """

    text: TagRule
    vector: TagRule | None = None

    def changed(
        self,
        threshold: Threshold | None = None,
        order: TagOrder | None = None,
        thresholds: Mapping[str, float] | None = None,
    ) -> "ModelRules":
        """Return both rules with another threshold or order; see `TagRule.changed`.

        Raises:
            UserError: the rule needs thresholds by tag, but neither the model nor the tags have them.
        """
        try:
            vector = self.vector and self.vector.changed(threshold, order, thresholds)
            return ModelRules(self.text.changed(threshold, order, thresholds), vector)
        except ValueError as error:
            raise UserError(str(error)) from error

    def described(self) -> dict[str, Any]:
        """Return both rules as an entry of a manifest."""
        return {"text": described(self.text)} | ({"vector": described(self.vector)} if self.vector else {})

    def in_words(self) -> str:
        """Return both rules as text."""
        text = self.text.in_words()
        differs = self.vector is not None and self.vector != self.text
        return f"{text}; for the prompt's vectors {self.vector.in_words()}" if differs and self.vector else text


def described(rule: TagRule) -> dict[str, Any]:
    """Return a rule as an entry of a manifest; thresholds are represented by their number and digest."""
    entry: dict[str, Any] = {"top_k": rule.top_k, "threshold": rule.threshold, "tag_order": rule.order}
    if rule.thresholds is not None and (rule.threshold == "per_tag" or rule.order == "list"):
        entry["thresholds"] = {"tags": len(rule.thresholds), "sha256": digest_of(list(rule.thresholds.items()))}
    return entry


def read_thresholds(uri: str) -> dict[str, float]:
    """Return the thresholds of a file; see `models.tags.parse_thresholds`.

    Raises:
        UserError: the file does not exist, or is not a list of thresholds.
    """
    if not storage.exists(uri):
        raise UserError(f"The thresholds {uri} do not exist; check the path.")
    try:
        return parse_thresholds(storage.read_bytes(uri), uri)
    except ValueError as error:
        raise UserError(str(error)) from error


def thresholds_of(table: str) -> dict[str, float] | None:
    """Return the thresholds of a table of tags, or None if its tagger has none.

    Args:
        table: the folder of a precompute step, a folder of several such folders, a table's folder, or a Parquet file.

    Raises:
        UserError: the folder has tables with different thresholds.
    """
    if not table:
        return None
    root = storage.absolute(table)
    if not storage.is_folder(root):
        sibling = storage.join(root.rpartition("/")[0], TABLE_THRESHOLDS)
        return read_thresholds(sibling) if storage.exists(sibling) else None
    for candidate in (storage.join(root, TABLE_THRESHOLDS), storage.join(root, "tagged", TABLE_THRESHOLDS)):
        if storage.exists(candidate):
            return read_thresholds(candidate)
    lists = [read_thresholds(name) for name in storage.list_files(root, TABLE_THRESHOLDS)]
    if any(list(other.items()) != list(lists[0].items()) for other in lists[1:]):
        raise UserError(f"{table} has tables of taggers with different thresholds; set threshold to one number.")
    return lists[0] if lists else None


def table_rule(
    table: str, top_k: int | None = None, threshold: Threshold | None = None, order: TagOrder | None = None
) -> TagRule:
    """Return the rule by which a table's tags are read; None means the default of `models.tags.make_rule`.

    Raises:
        UserError: a value is out of range, or the rule needs thresholds by tag and the table has none.
    """
    # With one number for all tags, the table's thresholds are not read: they may differ between its taggers.
    needed = not isinstance(threshold, int | float) or order == "list"
    try:
        return make_rule(top_k, threshold, order, thresholds_of(table) if needed else None)
    except ValueError as error:
        raise UserError(f"{table}: {error}") from error


def model_rules(folder: str, thresholds: Mapping[str, float] | None = None) -> ModelRules:
    """Return the rules by which a LION reads tags, from the settings in its folder.

    Args:
        folder: the path or URI of the model.
        thresholds: the thresholds of the tagger in use; they apply if the model's settings have no threshold.

    Raises:
        UserError: the folder has no settings, or its prompt has a kind that is not registered.
    """
    path = storage.join(folder, _PROCESSOR)
    if not storage.exists(path):
        raise UserError(f"{folder} has no {_PROCESSOR}; it is not the folder of a LION with its processor.")
    settings = storage.read_json(path)
    own: Mapping[str, float] | None = _optional(storage.join(folder, THRESHOLDS_NAME))
    threshold = settings.get("threshold")
    if threshold is None and own is None:
        own = thresholds
    text = make_rule(settings.get("top_k"), threshold, settings.get("tag_order"), own)
    try:
        prompt = prompt_design(settings.get("prompt", {}).get("kind", "static"))  # absent: the default
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if not prompt.uses_tag_encoder:
        return ModelRules(text)
    encoder = settings.get("tag_encoder")
    if encoder is None:  # an older folder: its encoder read the tags of the text
        return ModelRules(text, text)
    own = _optional(storage.join(folder, _OF_THE_ENCODER))
    return ModelRules(text, TagRule(encoder["top_k"], encoder["threshold"], encoder["tag_order"], own))


def _optional(uri: str) -> dict[str, float] | None:
    return read_thresholds(uri) if storage.exists(uri) else None


def exceed_threshold(tags: pa.Array, scores: np.ndarray, rule: TagRule) -> np.ndarray:
    """Return for each tag whether its confidence is above its threshold, (n,) bool. `top_k` is not applied.

    Args:
        tags: (n,) strings.
        scores: (n,) float32.
        rule: the thresholds.
    """
    if rule.threshold != "per_tag":
        above: np.ndarray = scores > np.float32(rule.threshold)
        return above
    own = rule.thresholds or {}
    limits = np.array([*own.values(), THRESHOLD], dtype=np.float32)
    indices = pc.fill_null(pc.index_in(tags, value_set=pa.array(list(own), pa.string())), len(own))
    above = scores > limits[indices.to_numpy(zero_copy_only=False)]
    return above
