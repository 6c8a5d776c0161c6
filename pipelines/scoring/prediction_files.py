"""Rows of predictions, and the decoding settings in the metadata of their files."""

import json
from collections.abc import Mapping
from typing import Any

from pipelines.core.errors import UserError
from pipelines.core.parquet import read_schema, result_files

DECODING = b"decoding"
"""Key of a predictions file's schema metadata: the effective settings of decoding, as JSON."""


def decoding_metadata(settings: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Return the schema metadata of a predictions file: the effective settings of decoding."""
    return {DECODING: json.dumps(settings).encode()}


def read_decoding(uri: str) -> dict[str, Any] | None:
    """Return the settings that predictions were decoded with; None where their files do not have any.

    Raises:
        UserError: files of one folder were decoded with different settings, so that they belong to different
            evaluations.
    """
    file_by_settings: dict[str, str] = {}
    for name in result_files(uri, "predictions"):
        text = (read_schema(name).metadata or {}).get(DECODING, b"").decode()
        file_by_settings.setdefault(text, name)
    if len(file_by_settings) > 1:
        first, second, *_ = file_by_settings.values()
        raise UserError(
            f"{first} and {second} were decoded with different settings; score the predictions of each evaluation "
            "separately."
        )
    (text,) = file_by_settings
    return json.loads(text) if text else None


def prediction_row(instruction: Mapping[str, Any], prediction: str | None, version: str | None) -> dict[str, Any]:
    """Build a row of `tables.PREDICTIONS` from a row of `tables.INSTRUCTIONS` and its answer; `box` is the true box."""
    return {
        "sample_id": instruction["sample_id"],
        "image_id": instruction["image_id"],
        "task": instruction["task"],
        "prediction": prediction,
        "box": instruction["box"],
        "references": instruction["answers"],
        "model_version": version,
    }
