"""Read and check the catalog of public files, `catalog.yaml`."""

import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

import yaml

from pipelines.core.errors import UserError

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """A public file. The head of `catalog.yaml` explains the fields."""

    name: str
    path: str
    urls: tuple[str, ...]
    license: str
    groups: tuple[str, ...]
    size: int | None = None
    sha256: str | None = None
    unpack: str | None = None
    page: str = ""
    note: str = ""


@functools.cache
def catalog() -> Mapping[str, Entry]:
    """Return the catalog of the project by name. It is read once per process."""
    return parse(resources.files(__package__).joinpath("catalog.yaml").read_text(encoding="utf-8"))


def parse(text: str) -> dict[str, Entry]:
    """Return the catalog in a YAML text, by name.

    Raises:
        ValueError: an entry has an unknown key, lacks a key, or has a wrong value; the message names the entry.
    """
    entries = {name: _entry(name, fields) for name, fields in yaml.safe_load(text).items()}
    groups = {group for entry in entries.values() for group in entry.groups}
    if both := groups & set(entries) | ({"all"} & (groups | set(entries))):
        raise ValueError(f"{sorted(both)} are names of files and of groups; choose different names.")
    targets = [target for entry in entries.values() for target in (entry.path, entry.unpack) if target]
    if duplicates := {target for target in targets if targets.count(target) > 1}:
        raise ValueError(f"Two files have the path {sorted(duplicates)}; choose different paths.")
    return entries


def _entry(name: str, fields: Mapping[str, Any]) -> Entry:
    try:
        entry = Entry(name, **{**fields, "urls": tuple(fields["urls"]), "groups": tuple(fields["groups"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{name!r}: {error}; see the head of catalog.yaml.") from error
    for target in filter(None, (entry.path, entry.unpack)):
        if PurePosixPath(target).is_absolute() or ".." in PurePosixPath(target).parts:
            raise ValueError(f"{name!r}: {target} is outside the folder; write a relative path without '..'.")
    if entry.sha256 is not None and not _SHA256.fullmatch(entry.sha256):
        raise ValueError(f"{name!r}: sha256 is {entry.sha256!r}, not 64 hexadecimal digits.")
    if entry.size is not None and (not isinstance(entry.size, int) or entry.size < 1):
        raise ValueError(f"{name!r}: size is {entry.size!r}, not a number of bytes.")
    if not all(url.startswith(("http://", "https://")) for url in entry.urls):
        raise ValueError(f"{name!r}: {entry.urls} must all begin with http:// or https://.")
    if not entry.urls and not entry.note:
        raise ValueError(f"{name!r} has no address; write a note that says how to get the file.")
    return entry


def choose(names: Sequence[str], entries: Mapping[str, Entry]) -> list[Entry]:
    """Return the files of names and groups, in the order of the catalog.

    Args:
        names: of files and groups; `all`: every file with an address.
        entries: the catalog.

    Raises:
        UserError: a name is unknown; the message suggests the closest one.
    """
    groups = {group for entry in entries.values() for group in entry.groups}
    valid = {*entries, *groups, "all"}
    for name in names:
        if name not in valid:
            closest = difflib.get_close_matches(name, sorted(valid), n=1, cutoff=0.4)
            hint = f"did you mean {closest[0]!r}? " if closest else ""
            raise UserError(f"There is no file or group {name!r}; {hint}--list shows them all.")
    requested = set(names)
    return [
        entry
        for entry in entries.values()
        if requested & {entry.name, *entry.groups} or ("all" in requested and entry.urls)
    ]
