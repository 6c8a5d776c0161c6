"""Configuration fields that are paths. `doctor`, `submit` and the command line find them by the field's metadata.

Declare a field that holds a path, a URI or a model's address with `path_field`. Declare a free mapping that contains
(a part of) another configuration with `settings_field`. There is no separate list of path names to maintain.
"""

import dataclasses
import functools
import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from pipelines.core import storage

Role = Literal["input", "model", "name", "output"]
"""Purpose of a path.

- input: a file, folder or URI that must exist.
- model: like input, or `models:/NAME@ALIAS`.
- name: a path, or a name that is not a path, such as a model's name in a hub.
- output: a folder or URI for results.
"""
Config = TypeVar("Config")
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")  # s3://bucket, models:/name@alias, mlflow-artifacts:/folder
_REFERENCE = re.compile(r"\$\{\w+\}")  # a reference to a step or a variable of a pipeline


@dataclasses.dataclass(frozen=True)
class ConfigPath:
    """A path in a configuration.

    Attributes:
        field: the dotted name, such as `sets[0].annotations`.
        role: the purpose; see `Role`.
        text: the path itself.
        sent: whether the file is a small configuration file that `submit` uploads with the job.
    """

    field: str
    role: Role
    text: str
    sent: bool = False

    @property
    def is_reference(self) -> bool:
        """Whether the path contains `${name}`, which a step or a variable of a pipeline replaces."""
        return bool(_REFERENCE.search(self.text))


def path_field(
    role: Role,
    default: Any = dataclasses.MISSING,
    *,
    default_factory: Any = dataclasses.MISSING,
    names: Sequence[str] = (),
    sent: bool = False,
    runtime: bool = False,
) -> Any:
    """Return a configuration field that is a path, a list of paths, or a mapping of names to paths.

    Args:
        role: the purpose; see `Role`.
        default: as in `dataclasses.field`.
        default_factory: as in `dataclasses.field`.
        names: values that are never paths, such as a preset's name, even if a file of that name exists.
        sent: see `ConfigPath`.
        runtime: see `pipelines.core.steps.runtime_field`.
    """
    metadata = {"path": role, "names": tuple(names), "sent": sent, "runtime": runtime}
    return dataclasses.field(default=default, default_factory=default_factory, metadata=metadata)


def settings_field(settings_of: Callable[[Any], type | None], *, each: bool = False, dotted: bool = False) -> Any:
    """Return a free mapping whose keys are fields of another configuration.

    Args:
        settings_of: a function from the configuration that has the mapping to the type that has the fields, or None
            if the type is unknown.
        each: the values of the mapping are such mappings, not the mapping itself.
        dotted: the keys are dotted field names; each value is a mapping whose lists contain values of that field.
    """
    metadata = {"settings_of": settings_of, "each": each, "dotted": dotted}
    return dataclasses.field(default_factory=dict, metadata=metadata)


def names_field() -> Any:
    """Return a mapping field whose keys are names, such as stages; sibling and nested fields may use them as models."""
    return dataclasses.field(default_factory=dict, metadata={"defines_names": True})


def config_paths(config: Any, prefix: str = "") -> Iterator[ConfigPath]:
    """Yield every path in a configuration, without empty ones and names of presets."""
    paths: list[ConfigPath] = []

    def collect(path: ConfigPath) -> str:
        paths.append(dataclasses.replace(path, field=prefix + path.field))
        return path.text

    _PathVisitor(collect).settings(config, type(config), "", frozenset())
    yield from paths


def with_absolute_paths(config: Config) -> Config:
    """Return the configuration with relative paths made absolute, relative to the working directory.

    Absolute paths, URIs, references of a pipeline, and model names that are not existing paths stay unchanged.
    """
    visitor = _PathVisitor(_absolute)
    return typing.cast(Config, visitor.settings(config, type(config), "", frozenset()))


def sent_options(config_type: type) -> list[str]:
    """Return the options of a verb whose value is a configuration file that `submit` uploads with the job."""
    return [f"--{name}" for name in _sent_fields(config_type, "")]


def _sent_fields(config_type: type, prefix: str) -> Iterator[str]:
    hints = _hints(config_type)
    for field in dataclasses.fields(config_type):
        if field.metadata.get("sent"):
            yield prefix + field.name
        for inner in _configurations(hints[field.name]):
            yield from _sent_fields(inner, f"{prefix}{field.name}.")


def _absolute(path: ConfigPath) -> str:
    text = path.text
    if _ADDRESS.match(text) or path.is_reference or os.path.isabs(text):
        return text
    if path.role in ("model", "name") and not os.path.exists(os.path.expanduser(text)):
        return text
    return storage.absolute(text)


class _PathVisitor:
    """A walk through a configuration that replaces each path with the result of a function.

    Args:
        visit: returns the new text of a path.
    """

    def __init__(self, visit: Callable[[ConfigPath], str]) -> None:
        self._visit = visit

    def settings(self, value: Any, kind: type, prefix: str, names: frozenset[str]) -> Any:
        """Return a configuration, or a mapping with some of its fields; the same object if nothing changes."""
        if not isinstance(value, Mapping) and not isinstance(value, kind):
            return value
        fields = {field.name: field for field in dataclasses.fields(kind)}
        content_of = value if isinstance(value, Mapping) else vars(value)
        present = {name: content_of[name] for name in fields if name in content_of}  # mappings may lack fields
        for name, content in present.items():
            if fields[name].metadata.get("defines_names"):
                names |= frozenset(content)
        changes = {}
        for name, content in present.items():
            changed = self._field(fields[name], _hints(kind)[name], content, value, prefix, names)
            if changed is not content:
                changes[name] = changed
        if not changes:
            return value
        return {**value, **changes} if isinstance(value, Mapping) else _replaced(value, changes)

    def _field(
        self,
        field: "dataclasses.Field[Any]",
        hint: Any,
        content: Any,
        owner: Any,
        prefix: str,
        names: frozenset[str],
    ) -> Any:
        dotted = prefix + field.name
        if "path" in field.metadata:
            return self._path(field, content, dotted, names)
        if "settings_of" in field.metadata:
            return self._free(field, content, owner, dotted, names)
        for inner in _configurations(hint):
            content = self._nested(content, inner, dotted, names)
        return content

    def _path(self, field: "dataclasses.Field[Any]", content: Any, dotted: str, names: frozenset[str]) -> Any:
        """Return a path, a list or a mapping of paths."""
        if isinstance(content, str):
            if not content or content in names or content in field.metadata["names"]:
                return content
            return self._visit(ConfigPath(dotted, field.metadata["path"], content, field.metadata["sent"]))
        if isinstance(content, list | tuple):
            items = [self._path(field, item, dotted, names) for item in content]
            return content if _same(items, content) else items
        if isinstance(content, Mapping):
            values = {key: self._path(field, item, f"{dotted}.{key}", names) for key, item in content.items()}
            return content if _same(values.values(), content.values()) else values
        return content

    def _free(
        self, field: "dataclasses.Field[Any]", content: Any, owner: Any, dotted: str, names: frozenset[str]
    ) -> Any:
        kind = field.metadata["settings_of"](owner)
        if kind is None or not isinstance(content, Mapping):
            return content
        if field.metadata["dotted"]:
            changed = {key: self._range(item, kind, key, f"{dotted}.{key}", names) for key, item in content.items()}
        elif field.metadata["each"]:
            changed = {key: self.settings(item, kind, f"{dotted}.{key}.", names) for key, item in content.items()}
        else:
            return self.settings(content, kind, f"{dotted}.", names)
        return content if _same(changed.values(), content.values()) else changed

    def _range(self, content: Any, kind: type, key: str, dotted: str, names: frozenset[str]) -> Any:
        """Return the possible values of a field in a search space, such as {choice: [a, b]}."""
        field = _field_at(kind, key)
        if field is None or "path" not in field.metadata or not isinstance(content, Mapping):
            return content
        changed = {key: self._path(field, item, dotted, names) for key, item in content.items()}
        return content if _same(changed.values(), content.values()) else changed

    def _nested(self, content: Any, kind: type, dotted: str, names: frozenset[str]) -> Any:
        """Return a configuration inside another, or a list or mapping of such."""
        if isinstance(content, kind):
            return self.settings(content, kind, f"{dotted}.", names)
        if isinstance(content, list | tuple):
            items = [self.settings(item, kind, f"{dotted}[{at}].", names) for at, item in enumerate(content)]
            return content if _same(items, content) else items
        if isinstance(content, Mapping) and all(isinstance(item, kind) for item in content.values()):
            values = {key: self.settings(item, kind, f"{dotted}.{key}.", names) for key, item in content.items()}
            return content if _same(values.values(), content.values()) else values
        # Inside a free mapping (`settings_field`), a nested configuration is a plain mapping.
        return self.settings(content, kind, f"{dotted}.", names)


def _replaced(config: Any, changes: Mapping[str, Any]) -> Any:
    return dataclasses.replace(config, **changes)


def _same(first: Any, second: Any) -> bool:
    return all(before is after for before, after in zip(first, second, strict=True))


def _field_at(kind: type, dotted: str) -> "dataclasses.Field[Any] | None":
    """Return the field with a dotted name, or None."""
    head, _, rest = dotted.partition(".")
    field = next((field for field in dataclasses.fields(kind) if field.name == head), None)
    if field is None or not rest:
        return field
    inner = next(iter(_configurations(_hints(kind)[head])), None)
    return None if inner is None else _field_at(inner, rest)


def _configurations(hint: Any) -> list[type]:
    """Return the configuration types in a type hint: X for each of X, X | None, list[X] and dict[str, X]."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [hint]
    return [kind for part in typing.get_args(hint) for kind in _configurations(part)]


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
