"""Download one file. A download that breaks is resumed, also by a later process, and a file appears only when complete.

huggingface_hub is not used for addresses of the Hub, because it resumes only within one call: version 2.4.0 deletes the
received bytes when a download fails, so that a broken download of 5.6 GB starts at 0 in the next process. It also needs
a server with the Hub's own headers, while a mirror here is any web server or folder.
"""

import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.core import storage

log = logging.getLogger("lion.fetch")
_CHUNK = 1 << 20
_TIMEOUT = 60.0  # seconds without receiving a byte
_SECONDS_BETWEEN_LINES = 10.0  # of the log
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class DownloadFailed(Exception):
    """A file that an address does not provide: it is missing, refused, or broke in every try."""


class WrongContent(Exception):
    """A file that has another size or digest than expected."""


@dataclass(frozen=True)
class Expected:
    """The size in bytes and the SHA-256 of a file before its download; None: unknown."""

    size: int | None = None
    sha256: str | None = None


@dataclass
class _Progress:
    """The progress of a download in the log.

    Attributes:
        name: of the file.
        logged: time of the last line.
        started: time of the start.
        first: byte at which this connection started.
    """

    name: str
    logged: float
    started: float
    first: int

    def update(self, done: int, total: int | None) -> None:
        """Log the number of bytes, the rate and the remaining time, at most every ten seconds."""
        now = time.monotonic()
        if now - self.logged < _SECONDS_BETWEEN_LINES:
            return
        self.logged = now
        rate = (done - self.first) / (now - self.started)
        rest = f" of {total / 1e6:,.0f} MB, {(total - done) / rate:,.0f} s left" if total and rate else " MB"
        log.info("%s: %.0f%s (%.1f MB/s)", self.name, done / 1e6, rest, rate / 1e6)


def download(url: str, target: Path, expected: Expected, tries: int, pause: float = 1.0) -> str:
    """Download a file from a web address, and resume what an earlier call has received.

    The bytes are appended to `TARGET.part`. `TARGET.part.json` records their address and version (ETag or date), so
    that bytes of two versions are never combined. The file gets its name when it is complete and correct.

    Args:
        url: http or https.
        target: path of the file.
        expected: its size and digest, if known.
        tries: number of successive tries without a new byte before the download fails.
        pause: seconds before the second try. It is doubled after each try, up to a minute.

    Returns:
        The SHA-256 of the file.

    Raises:
        DownloadFailed: the address does not provide the file.
        WrongContent: the size or digest is wrong. The received bytes are deleted.
    """
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    # A loop instead of `tenacity`: a try that received bytes resets the count and the pause, which it does not support.
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, target.name)
            break
        except urllib.error.HTTPError as error:
            problem = f"{error.code} {error.reason}"
            if error.code not in _TRANSIENT:
                raise DownloadFailed(f"{url} answers {problem}") from error
        except (OSError, http.client.HTTPException) as error:  # among them URLError, time-outs, resets, short reads
            problem = str(error) or type(error).__name__
        after = part.stat().st_size if part.exists() else 0
        # Only tries without progress count, so that a slow network that often breaks still finishes a large file.
        failures = 0 if after > before else failures + 1
        if failures >= tries:
            raise DownloadFailed(f"{url} failed {failures} times in a row: {problem}")
        wait = min(60.0, pause * 2**failures)
        log.warning("%s broke at %.1f MB (%s); resuming in %.1f s", target.name, after / 1e6, problem, wait)
        time.sleep(wait)
    return _publish(part, target, expected)


def copy(source: str, target: Path, expected: Expected) -> str:
    """Copy a file from a folder or an object store, and return its SHA-256.

    Args:
        source: path or URI of the file.
        target: path of the copy.
        expected: its size and digest, if known.

    Raises:
        DownloadFailed: the file does not exist.
        WrongContent: the size or digest is wrong.
    """
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    filesystem, path = storage.resolve(source)
    try:
        with filesystem.open_input_stream(path) as stream, part.open("wb") as sink:
            while chunk := stream.read(_CHUNK):
                sink.write(chunk)
    except FileNotFoundError as error:
        raise DownloadFailed(f"{source} does not exist") from error
    return _publish(part, target, expected)


def _receive(url: str, part: Path, name: str) -> None:
    """Append to `part` until the file is complete.

    Raises:
        OSError, http.client.HTTPException: the connection broke.
    """
    version_file = part.with_name(part.name + ".json")
    recorded: dict[str, Any] = json.loads(version_file.read_text()) if version_file.exists() else {}
    received = part.stat().st_size if part.exists() else 0
    # identity: positions of a Range are positions in the file only if the server does not compress it.
    headers = {"User-Agent": "dynamic-lion", "Accept-Encoding": "identity"}
    resumed = received > 0 and recorded.get("url") == url and bool(recorded.get("version"))
    if resumed:
        headers |= {"Range": f"bytes={received}-", "If-Range": recorded["version"]}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and resumed:  # the file has no further bytes
            if error.headers.get("Content-Range", "").rpartition("/")[2] == str(received):
                return
            part.unlink()
            raise OSError("the server has fewer bytes than were received; starting again") from error
        raise
    with answer:
        start, total = _byte_range(answer, received if resumed else 0)
        version = _version(answer)
        version_file.write_text(json.dumps({"url": url, "version": version}))
        progress = _Progress(name, time.monotonic(), time.monotonic(), start)
        with part.open("r+b" if start else "wb") as sink:
            sink.seek(start)
            done = start
            while chunk := answer.read(_CHUNK):
                sink.write(chunk)
                done += len(chunk)
                progress.update(done, total)
            sink.truncate()
    if total is not None and done < total:
        raise OSError(f"the connection ended at {done} of {total} bytes")


def _byte_range(answer: Any, received: int) -> tuple[int, int | None]:
    """Return the position of the answer's first byte in the file, and the size of the file (None: unknown)."""
    if answer.status == 206:
        span, _, total = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] != str(received):
            raise OSError(f"the server sent another part than requested: {span}")
        return received, int(total) if total.isdigit() else None
    length = answer.headers.get("Content-Length")  # status 200: the whole file, even if a part was requested
    return 0, int(length) if length else None


def _version(answer: Any) -> str | None:
    """Return the value for `If-Range`: a strong ETag, else the date of the last change."""
    tag = answer.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")


def _publish(part: Path, target: Path, expected: Expected) -> str:
    digest = storage.sha256(str(part))
    try:
        check(part, digest, expected)
    except WrongContent:
        part.unlink()
        raise
    finally:
        part.with_name(part.name + ".json").unlink(missing_ok=True)
    os.replace(part, target)
    return digest


def check(file: Path, digest: str, expected: Expected) -> None:
    """Compare a file with its expected size and digest.

    Raises:
        WrongContent: the size or the digest differs.
    """
    size = file.stat().st_size
    if expected.size is not None and size != expected.size:
        raise WrongContent(f"it has {size:,} bytes, but {expected.size:,} are published")
    if expected.sha256 is not None and digest != expected.sha256:
        raise WrongContent(f"its sha256 is {digest}, not {expected.sha256}")
