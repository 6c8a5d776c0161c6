"""The base class of the configurations of composed models."""

from typing import Any

from transformers import PreTrainedConfig


class ComposedConfig(PreTrainedConfig):
    """A configuration that is saved without the paths from which its parts were loaded.

    transformers writes `_name_or_path` of every part into ``config.json``. Equal models in two folders would then have
    different digests, so that a later step of another machine would get another hash.
    """

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, without paths."""
        return _without_paths(super().to_dict())

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the fields that differ from the defaults, without paths: the content of ``config.json``."""
        return _without_paths(super().to_diff_dict())


def _without_paths(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_paths(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if name != "_name_or_path"
    }
