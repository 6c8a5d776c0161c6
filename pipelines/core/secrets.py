"""Credentials that must not stand in a configuration: it is written to manifests, logs, MLflow and the dashboard."""

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
    """Whether a URI has a password, a key or a token in it: `scheme://user:password@…`, or a signed query."""
    found = _USER.match(uri)
    if found and found["user"] not in _NOT_SECRET:
        return True
    return "://" in uri and any(_QUERY.search(name) for name, _ in parse_qsl(uri.partition("?")[2]))


def require_none(config: Any) -> None:
    """Refuse a configuration that holds credentials.

    Raises:
        UserError: names the field, and not its value.
    """
    for field, text in _texts(config):
        if holds_credentials(text):
            raise UserError(
                f"{field.lstrip('.')} holds credentials, which manifests, logs, MLflow and the dashboard would show; "
                "leave them out of the address and set them in the environment (AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)."
            )


def _texts(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield field, value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for one in dataclasses.fields(value):
            yield from _texts(getattr(value, one.name), f"{field}.{one.name}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, f"{field}.{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _texts(item, f"{field}[{number}]")
