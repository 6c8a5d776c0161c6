"""Parts of a training that are added from outside the package, by name: callbacks and losses."""

from collections.abc import Mapping, MutableMapping
from typing import TypeVar

from pipelines.core.errors import UserError
from pipelines.core.lazy import import_object

T = TypeVar("T")


def register(entries: MutableMapping[str, T], kind: str, name: str, entry: T) -> None:
    """Add an entry under a name.

    Args:
        entries: the registered entries by name.
        kind: what they are, for the message, such as `loss`.
        name: of the new entry.
        entry: the new entry; an entry that is registered already under this name is accepted.

    Raises:
        ValueError: another entry has the name.
    """
    if entries.setdefault(name, entry) is not entry:
        raise ValueError(f"The {kind} name {name!r} is taken by {entries[name]}; register yours by another name.")


def find(entries: Mapping[str, T], name: str, field: str, problem: str, cure: str) -> T:
    """Return a registered entry, or import one that is named as `module:attribute`.

    Args:
        entries: the registered entries by name.
        name: as the configuration has it.
        field: of the configuration, for the message of a failed import.
        problem: the start of the message for an unknown name, such as `loss is 'x'`.
        cure: its end.

    Raises:
        UserError: no entry is registered by that name, or the import fails.
    """
    if name in entries:
        return entries[name]
    if ":" not in name:
        names = ", ".join(sorted(entries)) or "none"
        raise UserError(f"{problem}, which is not registered (registered: {names}); {cure}.")
    entry: T = import_object(name, field)
    return entry
