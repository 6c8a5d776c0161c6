"""Check that a configuration has no credentials: manifests, logs, MLflow and the dashboard show configurations."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from pipelines.core.errors import UserError

_USER = re.compile(r"^[a-z][a-z0-9+.\-]*://(?P<user>[^/@\s]*)@", re.IGNORECASE)
_QUERY = re.compile(r"(?i)(secret|token|passw|signature|credential|access_?key|api_?key|^sig$)")
_NOT_SECRET = {"anonymous"}  # gs://anonymous@bucket


def holds_credentials(uri: str) -> bool:
    """Return whether a URI contains a password, key or token: `scheme://user:password@…`, or a signed query."""
    match = _USER.match(uri)
    if match and match["user"] not in _NOT_SECRET:
        return True
    return "://" in uri and any(_QUERY.search(name) for name, _ in parse_qsl(uri.partition("?")[2]))


def require_none(config: Any) -> None:
    """Refuse a configuration that contains credentials.

    Raises:
        UserError: a field contains credentials. The message has the field's name but not its value.
    """
    for field, text in _texts(config):
        if holds_credentials(text):
            raise UserError(
                f"{field.lstrip('.')} holds credentials, which manifests, logs, MLflow and the dashboard would show; "
                "remove them from the address and set them in the environment (AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)."
            )


def _texts(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield field, value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for inner in dataclasses.fields(value):
            yield from _texts(getattr(value, inner.name), f"{field}.{inner.name}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, f"{field}.{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _texts(item, f"{field}[{number}]")
