"""The `fetch` verb: download and check files of the catalog. Files that exist are kept."""

import dataclasses
import datetime
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.steps import StepFolder, StepResult, step_lock
from pipelines.sources.fetching.catalog import Entry, catalog, choose
from pipelines.sources.fetching.download import DownloadFailed, Expected, WrongContent, check, copy, download
from pipelines.sources.fetching.unpacking import BadArchive, unpack

log = logging.getLogger("lion.fetch")
RECORD = "fetched.json"
_KEPT_FREE = 1 << 30  # bytes of the disk
HUB = "https://huggingface.co"


@dataclasses.dataclass(frozen=True)
class FetchConfig:
    """Download public weights and annotation files to a folder. Broken downloads resume, and every file is checked.

    A file that you put at its path yourself counts as fetched if it is the correct one. HF_ENDPOINT replaces the
    address of the Hugging Face Hub, as in its own tools."""

    names: list[str] = dataclasses.field(default_factory=list)
    """Files and groups of the catalog, for example [weights], [ram,ram-tags], [annotations] or [all]."""
    list: bool = False
    """Only list the catalog (or the files of --names): size, license, path, and which files exist."""
    out: str = path_field("output", "runs/fetched")
    """The local folder for the files."""
    mirror: str | None = path_field("input", None)
    """A web address, a folder, s3:// or gs:// with the files at the same paths as in --out. It is tried first."""
    offline: bool = False
    """Download only from the mirror."""
    unpack: bool = True
    """Also unpack archives."""
    verify: bool = False
    """Read existing files again and compare their digests. Without it, an existing file is recognized by its size."""
    tries: int = 6
    """Successive tries without a new byte before an address counts as failed and the next one is tried."""


def fetch(config: FetchConfig, entries: Mapping[str, Entry] | None = None) -> StepResult:
    """Download the files that do not exist, in the order of the catalog.

    Args:
        config: the files, the folder and the sources.
        entries: replaces the catalog of the project.

    Raises:
        UserError: a name is unknown, the disk is too full, or a file is not available or not the published one. The
            other files are fetched first.
    """
    entries = catalog() if entries is None else entries
    if storage.is_remote(config.out):
        raise UserError(f"out is {config.out}; weights are read from local or mounted folders: set such a folder.")
    if config.tries < 1:
        raise UserError(f"tries is {config.tries}; set at least 1.")
    if not config.names and not config.list:
        raise UserError("names is empty; set it, for example --names [weights]. --list shows all names.")
    chosen = choose(config.names, entries) if config.names else [*entries.values()]
    root = Path(storage.absolute(config.out))
    if config.list:
        return StepResult("fetch", str(root), True, {"rows": len(chosen)}, _list_rows(chosen, root))
    # Two processes that fetch to one folder would append to the same partial files.
    with step_lock(StepFolder("fetch", str(root), "")):
        return _fetch_all(config, chosen, root)


def _fetch_all(config: FetchConfig, chosen: Sequence[Entry], root: Path) -> StepResult:
    _require_space(chosen, root)
    downloaded, failures = 0, []
    for number, entry in enumerate(chosen, start=1):
        try:
            is_new = _fetch_file(config, entry, root)
            is_new = _unpack(config, entry, root) or is_new
        except (DownloadFailed, WrongContent, BadArchive) as error:
            failures.append(f"{entry.name}: {error}. By hand: {_manual_steps(entry, root)}")
            log.warning("%s", failures[-1])
            continue
        downloaded += is_new
        log.info("File %d of %d: %s %s", number, len(chosen), entry.name, "fetched" if is_new else "exists")
    if failures:
        details = "\n  ".join(failures)
        raise UserError(f"{len(failures)} of {len(chosen)} files are not available:\n  {details}")
    size = sum((root / entry.path).stat().st_size for entry in chosen)
    return StepResult("fetch", str(root), not downloaded, {"rows": len(chosen), "fetched": downloaded, "bytes": size})


def _fetch_file(config: FetchConfig, entry: Entry, root: Path) -> bool:
    """Download a file if it does not exist. Return whether it was downloaded.

    Raises:
        DownloadFailed: no address provides the file.
        WrongContent: the existing or the downloaded file is not the published one.
    """
    target, record = root / entry.path, _record(root)
    recorded = record.get(entry.path, {})
    expected = Expected(entry.size or recorded.get("size"), entry.sha256 or recorded.get("sha256"))
    if target.exists():
        has_size = recorded.get("size") == target.stat().st_size
        if has_size and expected.sha256 == recorded["sha256"] and not config.verify:
            return False
        digest = storage.sha256(str(target))
        try:
            check(target, digest, expected)
        except WrongContent as error:
            raise WrongContent(f"{target} is another file ({error}); move it away") from error
        _record_file(root, entry, digest, "by hand" if not recorded else recorded["from"])
        return False
    problems: list[str] = []
    for address in _addresses(config, entry):
        try:
            if address.startswith(("http://", "https://")):
                digest = download(address, target, expected, config.tries)
            else:
                digest = copy(address, target, expected)
        except (DownloadFailed, WrongContent) as error:
            problems.append(f"{address}: {error}" if isinstance(error, WrongContent) else str(error))
            continue
        _record_file(root, entry, digest, address)
        return True
    raise DownloadFailed("; ".join(problems) or "it has no address")


def _addresses(config: FetchConfig, entry: Entry) -> list[str]:
    """Return the addresses of a file in the order of the tries: the mirror, then the public ones."""
    mirror = [] if config.mirror is None else [storage.join(config.mirror, entry.path)]
    if config.offline:
        return mirror
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB
    public = [f"{endpoint}{url.removeprefix(HUB)}" if url.startswith(f"{HUB}/") else url for url in entry.urls]
    return [*mirror, *public]


def _unpack(config: FetchConfig, entry: Entry, root: Path) -> bool:
    """Unpack an archive if its folder does not exist. Return whether it was unpacked."""
    if not config.unpack or entry.unpack is None or (root / entry.unpack).exists():
        return False
    log.info("%s: unpacking to %s", entry.name, entry.unpack)
    (root / entry.unpack).parent.mkdir(parents=True, exist_ok=True)
    unpack(root / entry.path, root / entry.unpack)
    return True


def _require_space(chosen: Sequence[Entry], root: Path) -> None:
    """Check the free space of the disk against the files of known size.

    Raises:
        UserError: the disk has too little space.
    """
    root.mkdir(parents=True, exist_ok=True)
    missing = sum(entry.size or 0 for entry in chosen if not (root / entry.path).exists())
    free = shutil.disk_usage(root).free
    if missing + _KEPT_FREE > free:
        raise UserError(
            f"{root} has {free / 1e9:.1f} GB free, but the files need at least {missing / 1e9:.1f} GB; free space."
        )


def _record(root: Path) -> dict[str, Any]:
    file = root / RECORD
    return json.loads(file.read_text()) if file.exists() else {}


def _record_file(root: Path, entry: Entry, digest: str, origin: str) -> None:
    """Record the size and digest of a file. A later download must have the same."""
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    size = (root / entry.path).stat().st_size
    record = _record(root) | {entry.path: {"size": size, "sha256": digest, "from": origin, "checked": when}}
    storage.write_json(str(root / RECORD), dict(sorted(record.items())))


def _manual_steps(entry: Entry, root: Path) -> str:
    download_it = f"get it from {' or '.join(entry.urls)}" if entry.urls else entry.note
    page = f" (its page: {entry.page})" if entry.page else ""
    return f"{download_it}{page} and put it at {root / entry.path}."


def _list_rows(chosen: Sequence[Entry], root: Path) -> list[str]:
    """Return a tab-separated table: the names of the columns, and a line per file."""
    record = _record(root)
    lines = ["name\tsize\tsha256\tlicense\tgroups\tplace\tthere\tfrom\tpage\tnote"]
    for entry in chosen:
        recorded = record.get(entry.path, {})
        size = entry.size or recorded.get("size")
        cells = [
            entry.name,
            "unknown" if size is None else f"{size}",
            entry.sha256 or recorded.get("sha256") or "unknown",
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
