"""`fetch`: files of the catalog into a folder, each checked, what is there already left alone."""

import dataclasses
import datetime
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.steps import StepFolder, StepResult, step_lock
from pipelines.sources.fetching.catalog import Entry, catalog, choose
from pipelines.sources.fetching.download import Expected, NotThere, WrongContent, check, copy, download
from pipelines.sources.fetching.unpacking import BadArchive, unpack

log = logging.getLogger("lion.fetch")
RECORD = "fetched.json"
_KEPT_FREE = 1 << 30  # bytes of the disk


@dataclasses.dataclass(frozen=True)
class FetchConfig:
    """Brings public weights and annotation files into a folder: resumed, checked, and never twice.

    A file put at its place by hand counts as fetched when it is the right one."""

    names: list[str] = dataclasses.field(default_factory=list)
    """Files and groups of the catalog: [weights], [ram,ram-tags], [annotations], [all]."""
    list: bool = False
    """Only show the catalog (or the names): size, license, place, and what is there."""
    out: str = path_field("output", "runs/fetched")
    """The local folder that the files go to."""
    mirror: str | None = path_field("input", None)
    """A web address, folder, s3:// or gs:// that has the files at the same paths as --out; asked first."""
    offline: bool = False
    """Ask nobody but the mirror."""
    unpack: bool = True
    """Also unpack archives."""
    verify: bool = False
    """Read files that are there again and compare their digests."""
    tries: int = 6
    """Tries in a row without a new byte before a home is given up."""


def fetch(config: FetchConfig, entries: Mapping[str, Entry] | None = None) -> StepResult:
    """Bring what is not there, in the catalog's order.

    Args:
        config: what, where to and where from.
        entries: instead of the project's catalog.

    Raises:
        UserError: a name is unknown, the disk is too full, or a file is nowhere to be had or not the published one; the
            others are brought all the same.
    """
    entries = catalog() if entries is None else entries
    if storage.is_remote(config.out):
        raise UserError(f"out is {config.out}; weights are read from local or mounted folders: give one.")
    if config.tries < 1:
        raise UserError(f"tries is {config.tries}; give at least 1.")
    if not config.names and not config.list:
        raise UserError("Say what to fetch, such as --names [weights]; --list shows what there is.")
    chosen = choose(config.names, entries) if config.names else [*entries.values()]
    root = Path(storage.absolute(config.out))
    if config.list:
        return StepResult("fetch", str(root), True, {"rows": len(chosen)}, _listed(chosen, root))
    with step_lock(StepFolder("fetch", str(root), "")):
        return _fetch(config, chosen, root)


def _fetch(config: FetchConfig, chosen: Sequence[Entry], root: Path) -> StepResult:
    _require_space(chosen, root)
    brought, failures = 0, []
    for number, entry in enumerate(chosen, start=1):
        try:
            new = _bring(config, entry, root)
            new = _unpack(config, entry, root) or new
        except (NotThere, WrongContent, BadArchive) as error:
            failures.append(f"{entry.name}: {error}. By hand: {_by_hand(entry, root)}")
            log.warning("%s", failures[-1])
            continue
        brought += new
        log.info("%d of %d: %s %s", number, len(chosen), entry.name, "fetched" if new else "was there")
    if failures:
        told = "\n  ".join(failures)
        raise UserError(f"{len(failures)} of {len(chosen)} files are not to be had:\n  {told}")
    size = sum((root / entry.path).stat().st_size for entry in chosen)
    return StepResult("fetch", str(root), not brought, {"rows": len(chosen), "fetched": brought, "bytes": size})


def _bring(config: FetchConfig, entry: Entry, root: Path) -> bool:
    """Make sure of one file; whether it was not there.

    Raises:
        NotThere: no home gives it.
        WrongContent: what is there, or what came, is another file.
    """
    target, record = root / entry.path, _record(root)
    known = record.get(entry.path, {})
    expected = Expected(entry.size or known.get("size"), entry.sha256 or known.get("sha256"))
    if target.exists():
        if known.get("size") == target.stat().st_size and expected.sha256 == known["sha256"] and not config.verify:
            return False
        found = storage.sha256(str(target))
        try:
            check(target, found, expected)
        except WrongContent as error:
            raise WrongContent(f"{target} is another file ({error}); move it away") from error
        _note(root, entry, found, "by hand" if not known else known["from"])
        return False
    problems: list[str] = []
    for home in _homes(config, entry):
        try:
            if home.startswith(("http://", "https://")):
                found = download(home, target, expected, config.tries)
            else:
                found = copy(home, target, expected)
        except (NotThere, WrongContent) as error:
            problems.append(f"{home}: {error}" if isinstance(error, WrongContent) else str(error))
            continue
        _note(root, entry, found, home)
        return True
    raise NotThere("; ".join(problems) or "no home of it is known")


def _homes(config: FetchConfig, entry: Entry) -> list[str]:
    mirror = [] if config.mirror is None else [storage.join(config.mirror, entry.path)]
    return mirror if config.offline else [*mirror, *entry.urls]


def _unpack(config: FetchConfig, entry: Entry, root: Path) -> bool:
    """Unpack an archive that is not unpacked yet; whether it did."""
    if not config.unpack or entry.unpack is None or (root / entry.unpack).exists():
        return False
    log.info("%s: unpacking to %s", entry.name, entry.unpack)
    (root / entry.unpack).parent.mkdir(parents=True, exist_ok=True)
    unpack(root / entry.path, root / entry.unpack)
    return True


def _require_space(chosen: Sequence[Entry], root: Path) -> None:
    """Refuse what the disk cannot hold, as far as sizes are known.

    Raises:
        UserError: how much there is and how much is needed.
    """
    root.mkdir(parents=True, exist_ok=True)
    missing = sum(entry.size or 0 for entry in chosen if not (root / entry.path).exists())
    free = shutil.disk_usage(root).free
    if missing + _KEPT_FREE > free:
        raise UserError(f"{root} has {free / 1e9:.1f} GB free, and at least {missing / 1e9:.1f} GB are to come.")


def _record(root: Path) -> dict[str, Any]:
    file = root / RECORD
    return json.loads(file.read_text()) if file.exists() else {}


def _note(root: Path, entry: Entry, found: str, origin: str) -> None:
    """Record a file's size and digest: what a first download gave, a later one must give again."""
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    size = (root / entry.path).stat().st_size
    record = _record(root) | {entry.path: {"size": size, "sha256": found, "from": origin, "checked": when}}
    storage.write_json(str(root / RECORD), dict(sorted(record.items())))


def _by_hand(entry: Entry, root: Path) -> str:
    homes = f"get it from {' or '.join(entry.urls)}" if entry.urls else entry.note
    page = f" (its page: {entry.page})" if entry.page else ""
    return f"{homes}{page} and put it at {root / entry.path}."


def _listed(chosen: Sequence[Entry], root: Path) -> list[str]:
    """Return a line per file, tab-separated, under the names of the columns."""
    record = _record(root)
    lines = ["name\tsize\tsha256\tlicense\tgroups\tplace\tthere\tfrom\tpage\tnote"]
    for entry in chosen:
        known = record.get(entry.path, {})
        size = entry.size or known.get("size")
        cells = [
            entry.name,
            "unknown" if size is None else f"{size}",
            entry.sha256 or known.get("sha256") or "unknown",
            entry.license,
            ",".join(entry.groups),
            str(root / entry.path),
            "yes" if (root / entry.path).exists() else "no",
            " ".join(entry.urls) or "by hand",
            entry.page,
            entry.note,
        ]
        lines.append("\t".join(cells))
    return lines
