"""The catalog of public files: `catalog.yaml`, read once and checked."""

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
    """A public file; the fields are explained at the head of `catalog.yaml`."""

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
    """Return the catalog that comes with the project, by name."""
    return parse(resources.files(__package__).joinpath("catalog.yaml").read_text(encoding="utf-8"))


def parse(text: str) -> dict[str, Entry]:
    """Return a catalog from YAML.

    Raises:
        ValueError: an entry has an unknown key, lacks one, or a value is not of its kind; the sentence names it.
    """
    entries = {name: _entry(name, fields) for name, fields in yaml.safe_load(text).items()}
    groups = {group for entry in entries.values() for group in entry.groups}
    if both := groups & set(entries) | ({"all"} & (groups | set(entries))):
        raise ValueError(f"{sorted(both)} are names of files and of groups; a name must be one of them.")
    places = [place for entry in entries.values() for place in (entry.path, entry.unpack) if place]
    if twice := {place for place in places if places.count(place) > 1}:
        raise ValueError(f"Two files go to {sorted(twice)}.")
    return entries


def _entry(name: str, fields: Mapping[str, Any]) -> Entry:
    try:
        entry = Entry(name, **{**fields, "urls": tuple(fields["urls"]), "groups": tuple(fields["groups"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{name!r}: {error}; see the head of catalog.yaml.") from error
    for place in filter(None, (entry.path, entry.unpack)):
        if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
            raise ValueError(f"{name!r} would leave the folder: {place}.")
    if entry.sha256 is not None and not _SHA256.fullmatch(entry.sha256):
        raise ValueError(f"{name!r}: sha256 is {entry.sha256!r}, not 64 hexadecimal digits.")
    if entry.size is not None and (not isinstance(entry.size, int) or entry.size < 1):
        raise ValueError(f"{name!r}: size is {entry.size!r}, not a number of bytes.")
    if not all(url.startswith(("http://", "https://")) for url in entry.urls):
        raise ValueError(f"{name!r}: {entry.urls} are not all web addresses.")
    if not entry.urls and not entry.note:
        raise ValueError(f"{name!r} has no address, so its note must say how to get it.")
    return entry


def choose(names: Sequence[str], entries: Mapping[str, Entry]) -> list[Entry]:
    """Return the files of names and groups, in the catalog's order; `all` is all that has an address.

    Raises:
        UserError: there is no such name; the sentence names the nearest.
    """
    groups = {group for entry in entries.values() for group in entry.groups}
    known = {*entries, *groups, "all"}
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.4)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise UserError(f"There is no file or group {name!r}; {hint}--list shows them all.")
    wanted = set(names)
    return [
        entry for entry in entries.values() if wanted & {entry.name, *entry.groups} or ("all" in wanted and entry.urls)
    ]
