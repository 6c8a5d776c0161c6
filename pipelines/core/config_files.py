"""Configuration files (YAML) that include others, so that several pipelines share their steps.

A file with the key `include: FILE`, or a list of files, takes their content and changes it:

- Paths are relative to the including file. Later files of a list override earlier ones; the file itself overrides all.
- Mappings are merged at any depth. Other values, lists among them, are replaced.
- A step is removed by null: `steps: {untrained: null}`.
- A new key comes before the next key of the same mapping that is also in the included file, otherwise at the end. So
  `steps: {margins: {…}, questions: {}}` adds `margins` before the included, unchanged step `questions`.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from pipelines.core import storage
from pipelines.core.errors import UserError

INCLUDE = "include"


def read_config(uri: str) -> Any:
    """Return the content of a YAML file, with the files that it includes.

    Raises:
        UserError: a file does not exist or is not valid YAML, an `include` is wrong, or files include each other.
    """
    return _resolve(storage.absolute(uri), ())


def resolved_text(uri: str) -> str | None:
    """Return the YAML text of a file together with the files that it includes; None if it has no `include`.

    Raises:
        UserError: as for `read_config`, except that text that is not YAML has no `include`.
    """
    try:
        document = yaml.safe_load(storage.read_bytes(storage.absolute(uri)))
    except (OSError, yaml.YAMLError):  # whoever parses the file reports it
        return None
    if not isinstance(document, Mapping) or INCLUDE not in document:
        return None
    return yaml.safe_dump(read_config(uri), sort_keys=False, allow_unicode=True, width=120)


def _resolve(uri: str, including: tuple[str, ...]) -> Any:
    if uri in including:
        raise UserError(f"{' includes '.join([*including, uri])}: files include each other; remove one `include`.")
    document = _read(uri, including)
    if not isinstance(document, Mapping) or INCLUDE not in document:
        return document
    result: dict[str, Any] = {}
    for name in _included(uri, document):
        content = _resolve(name, (*including, uri))
        if not isinstance(content, Mapping):
            raise UserError(f"{name} has no mapping of keys, but {uri} includes it; correct the file or `include`.")
        result = _merge(result, content)
    result = _merge(result, {key: value for key, value in document.items() if key != INCLUDE})
    steps = result.get("steps")
    if isinstance(steps, Mapping):
        result["steps"] = {name: step for name, step in steps.items() if step is not None}
    return result


def _read(uri: str, including: tuple[str, ...] = ()) -> Any:
    try:
        content = storage.read_bytes(uri)
    except OSError as error:
        source = f"{including[-1]} includes {uri}, which" if including else uri
        raise UserError(f"{source} cannot be read ({error}); check the path.") from error
    try:
        return yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise UserError(f"{uri} is not valid YAML ({error}); correct the file.") from error


def _included(uri: str, document: Any) -> list[str]:
    """Return the absolute paths of the files that a document includes directly."""
    names = document.get(INCLUDE, []) if isinstance(document, Mapping) else []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{uri}: include is {names!r}, but must be the path of a file or a list of paths.")
    folder = uri.rpartition("/")[0]
    absolute = [storage.is_remote(name) or name.startswith(("/", "~")) for name in names]
    return [
        storage.absolute(name if full else storage.join(folder, name))
        for name, full in zip(names, absolute, strict=True)
    ]


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` updated with `changes` at any depth; see the module's docstring for the order of keys."""
    before: dict[str, list[str]] = {}  # a key of `base` → the new keys to be placed before it
    new: list[str] = []
    for key in changes:
        if key in base:
            before[key], new = new, []
        else:
            new.append(key)
    order = [name for key in base for name in (*before.get(key, ()), key)] + new
    return {key: _merged_value(base, changes, key) for key in order}


def _merged_value(base: Mapping[str, Any], changes: Mapping[str, Any], key: str) -> Any:
    if key not in changes:
        return base[key]
    old, value = base.get(key), changes[key]
    return _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
