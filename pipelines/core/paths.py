"""Which fields of a configuration are paths: marked where the field is, read by doctor, submit and the command line.

A field that holds a path, a URI or a model's address is made with `path_field`; a free mapping that is the
configuration of a training, or a part of it, with `settings_field`. Nobody keeps a list of names beside it.
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
"""input: a file, folder or URI that must be there. model: that, or models:/NAME@ALIAS. name: a path, or something else,
such as the name of a model in a hub. output: where results go."""
Config = TypeVar("Config")
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")  # s3://bucket, models:/name@alias, mlflow-artifacts:/folder
_REFERENCE = re.compile(r"\$\{\w+\}")  # to a pipeline's step or variable


@dataclasses.dataclass(frozen=True)
class PathPlace:
    """A path in a configuration.

    Attributes:
        field: dotted, such as `sets[0].annotations`.
        role: what it is for.
        text: the path.
        sent: whether it is a small configuration file that `submit` sends with the job.
    """

    field: str
    role: Role
    text: str
    sent: bool = False

    @property
    def is_reference(self) -> bool:
        """Whether it is filled in later, by a step or a variable of a pipeline."""
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
        role: see `Role`.
        default: as of `dataclasses.field`.
        default_factory: likewise.
        names: texts that are no paths whatever lies in the working directory, such as a preset's name.
        sent: see `PathPlace`.
        runtime: see `pipelines.core.steps.runtime_field`.
    """
    metadata = {"path": role, "names": tuple(names), "sent": sent, "runtime": runtime}
    return dataclasses.field(default=default, default_factory=default_factory, metadata=metadata)


def settings_field(settings_of: Callable[[Any], type | None], *, each: bool = False, dotted: bool = False) -> Any:
    """Return a free mapping whose keys are fields of another configuration.

    Args:
        settings_of: the configuration that has the mapping → the type whose fields are meant; None: not known.
        each: the mapping holds one such mapping for each of its keys.
        dotted: the keys are dotted fields, and each value a mapping whose lists hold values of that field.
    """
    metadata = {"settings_of": settings_of, "each": each, "dotted": dotted}
    return dataclasses.field(default_factory=dict, metadata=metadata)


def names_field() -> Any:
    """A mapping whose keys are names that may stand in the place of a model in the fields beside and inside it."""
    return dataclasses.field(default_factory=dict, metadata={"defines_names": True})


def path_places(config: Any, prefix: str = "") -> Iterator[PathPlace]:
    """Return every path in a configuration that is not empty and is no preset's name."""
    places: list[PathPlace] = []

    def note(place: PathPlace) -> str:
        places.append(dataclasses.replace(place, field=prefix + place.field))
        return place.text

    _Walk(note).settings(config, type(config), "", frozenset())
    yield from places


def with_absolute_paths(config: Config) -> Config:
    """Return the configuration with relative paths made absolute by the working directory.

    Absolute paths, URIs, references of a pipeline, and names of models that are no path here stay, letter by letter.
    """
    walk = _Walk(_absolute)
    return typing.cast(Config, walk.settings(config, type(config), "", frozenset()))


def sent_options(config_type: type) -> list[str]:
    """Return the options of a verb that name a configuration file to be sent with a job."""
    return [f"--{name}" for name in _sent_fields(config_type, "")]


def _sent_fields(config_type: type, prefix: str) -> Iterator[str]:
    hints = _hints(config_type)
    for field in dataclasses.fields(config_type):
        if field.metadata.get("sent"):
            yield prefix + field.name
        for inner in _configurations(hints[field.name]):
            yield from _sent_fields(inner, f"{prefix}{field.name}.")


def _absolute(place: PathPlace) -> str:
    text = place.text
    if _ADDRESS.match(text) or place.is_reference or os.path.isabs(text):
        return text
    if place.role in ("model", "name") and not os.path.exists(os.path.expanduser(text)):
        return text
    return storage.absolute(text)


class _Walk:
    """Goes through a configuration and puts what a function returns in the place of each path.

    Args:
        visit: a path → the text that stands there afterwards.
    """

    def __init__(self, visit: Callable[[PathPlace], str]) -> None:
        self._visit = visit

    def settings(self, value: Any, kind: type, prefix: str, names: frozenset[str]) -> Any:
        """Return a configuration, or a mapping with some of its fields; the same object where nothing changes."""
        if not isinstance(value, Mapping) and not isinstance(value, kind):
            return value
        fields = {field.name: field for field in dataclasses.fields(kind)}
        content_of = value if isinstance(value, Mapping) else vars(value)
        present = {name: content_of[name] for name in fields if name in content_of}
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
        place = prefix + field.name
        if "path" in field.metadata:
            return self._path(field, content, place, names)
        if "settings_of" in field.metadata:
            return self._free(field, content, owner, place, names)
        for inner in _configurations(hint):
            content = self._nested(content, inner, place, names)
        return content

    def _path(self, field: "dataclasses.Field[Any]", content: Any, place: str, names: frozenset[str]) -> Any:
        """Return a path, a list or a mapping of paths."""
        if isinstance(content, str):
            if not content or content in names or content in field.metadata["names"]:
                return content
            return self._visit(PathPlace(place, field.metadata["path"], content, field.metadata["sent"]))
        if isinstance(content, list | tuple):
            items = [self._path(field, item, place, names) for item in content]
            return content if _same(items, content) else items
        if isinstance(content, Mapping):
            values = {key: self._path(field, item, f"{place}.{key}", names) for key, item in content.items()}
            return content if _same(values.values(), content.values()) else values
        return content

    def _free(
        self, field: "dataclasses.Field[Any]", content: Any, owner: Any, place: str, names: frozenset[str]
    ) -> Any:
        kind = field.metadata["settings_of"](owner)
        if kind is None or not isinstance(content, Mapping):
            return content
        if field.metadata["dotted"]:
            changed = {key: self._range(item, kind, key, f"{place}.{key}", names) for key, item in content.items()}
        elif field.metadata["each"]:
            changed = {key: self.settings(item, kind, f"{place}.{key}.", names) for key, item in content.items()}
        else:
            return self.settings(content, kind, f"{place}.", names)
        return content if _same(changed.values(), content.values()) else changed

    def _range(self, content: Any, kind: type, dotted: str, place: str, names: frozenset[str]) -> Any:
        """What a field may be, such as {choice: [a, b]}."""
        field = _field_at(kind, dotted)
        if field is None or "path" not in field.metadata or not isinstance(content, Mapping):
            return content
        changed = {key: self._path(field, item, place, names) for key, item in content.items()}
        return content if _same(changed.values(), content.values()) else changed

    def _nested(self, content: Any, kind: type, place: str, names: frozenset[str]) -> Any:
        """Return a configuration inside another, or a list or mapping of such."""
        if isinstance(content, kind):
            return self.settings(content, kind, f"{place}.", names)
        if isinstance(content, list | tuple):
            items = [self.settings(item, kind, f"{place}[{at}].", names) for at, item in enumerate(content)]
            return content if _same(items, content) else items
        if isinstance(content, Mapping) and all(isinstance(item, kind) for item in content.values()):
            values = {key: self.settings(item, kind, f"{place}.{key}.", names) for key, item in content.items()}
            return content if _same(values.values(), content.values()) else values
        # In a free mapping a nested configuration is a mapping, too.
        return self.settings(content, kind, f"{place}.", names)


def _replaced(config: Any, changes: Mapping[str, Any]) -> Any:
    return dataclasses.replace(config, **changes)


def _same(first: Any, second: Any) -> bool:
    return all(one is other for one, other in zip(first, second, strict=True))


def _field_at(kind: type, dotted: str) -> "dataclasses.Field[Any] | None":
    """Return the field of a dotted name, None where there is none."""
    head, _, rest = dotted.partition(".")
    field = next((field for field in dataclasses.fields(kind) if field.name == head), None)
    if field is None or not rest:
        return field
    inner = next(iter(_configurations(_hints(kind)[head])), None)
    return None if inner is None else _field_at(inner, rest)


def _configurations(hint: Any) -> list[type]:
    """Return the configurations in a type: of X, X | None, list[X] and dict[str, X] each X."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [hint]
    return [kind for part in typing.get_args(hint) for kind in _configurations(part)]


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
