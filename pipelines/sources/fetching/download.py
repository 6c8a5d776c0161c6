"""One file from the web or a folder: resumed where it broke, whole or not at all."""

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
_TIMEOUT = 60.0  # seconds without a byte
_SECONDS_BETWEEN_LINES = 10.0
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class NotThere(Exception):
    """A home of a file does not give it: refused, missing, or broken more often than was tried again."""


class WrongContent(Exception):
    """What arrived is not the file: another size or digest than is known of it."""


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it arrives; None: unknown."""

    size: int | None = None
    sha256: str | None = None


@dataclass
class _Progress:
    """What the log has heard of a download."""

    name: str
    shown: float
    started: float
    first: int

    def tell(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self.shown < _SECONDS_BETWEEN_LINES:
            return
        self.shown = now
        rate = (done - self.first) / (now - self.started)
        left = f" of {total / 1e6:,.0f} MB, {(total - done) / rate:,.0f} s left" if total and rate else " MB"
        log.info("%s: %.0f%s (%.1f MB/s)", self.name, done / 1e6, left, rate / 1e6)


def download(url: str, target: Path, expected: Expected, tries: int, pause: float = 1.0) -> str:
    """Bring a file from a web address; what an earlier call brought of it is kept and continued.

    The bytes grow in `TARGET.part`; beside it `TARGET.part.json` says which version of which address they are of
    (by its ETag or date), so that two versions are never joined. The file gets its name when it is whole and right.

    Args:
        url: http or https.
        target: where the file goes.
        expected: its size and digest, as far as they are known.
        tries: in a row without a new byte, before it is given up.
        pause: seconds before the second try; doubled each time, up to a minute.

    Returns:
        The file's SHA-256.

    Raises:
        NotThere: the address does not give the file.
        WrongContent: the file is another one; its bytes are thrown away.
    """
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, target.name)
            break
        except urllib.error.HTTPError as error:
            problem = f"{error.code} {error.reason}"
            if error.code not in _PASSING:
                raise NotThere(f"{url} answers {problem}") from error
        except (OSError, http.client.HTTPException) as error:  # among them URLError, time-outs, resets, short reads
            problem = str(error) or type(error).__name__
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures >= tries:
            raise NotThere(f"{url} failed {failures} times in a row: {problem}")
        wait = min(60.0, pause * 2**failures)
        log.warning("%s broke at %.1f MB (%s); on from there in %.1f s", target.name, after / 1e6, problem, wait)
        time.sleep(wait)
    return _publish(part, target, expected)


def copy(source: str, target: Path, expected: Expected) -> str:
    """Like `download`, from a folder's or an object store's file.

    Raises:
        NotThere: no such file.
        WrongContent: the file is another one.
    """
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    filesystem, path = storage.resolve(source)
    try:
        with filesystem.open_input_stream(path) as stream, part.open("wb") as sink:
            while chunk := stream.read(_CHUNK):
                sink.write(chunk)
    except FileNotFoundError as error:
        raise NotThere(f"{source} does not exist") from error
    return _publish(part, target, expected)


def _receive(url: str, part: Path, name: str) -> None:
    """Append to `part` until the server says that it was all.

    Raises:
        OSError, http.client.HTTPException: the connection broke.
    """
    note = part.with_name(part.name + ".json")
    known: dict[str, Any] = json.loads(note.read_text()) if note.exists() else {}
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "dynamic-lion", "Accept-Encoding": "identity"}
    resumed = have > 0 and known.get("url") == url and bool(known.get("version"))
    if resumed:
        headers |= {"Range": f"bytes={have}-", "If-Range": known["version"]}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and resumed:  # nothing behind what we have
            if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
                return
            part.unlink()
            raise OSError("the server has fewer bytes than were received; from the start again") from error
        raise
    with answer:
        start, total = _place(answer, have if resumed else 0)
        version = _version(answer)
        note.write_text(json.dumps({"url": url, "version": version}))
        progress = _Progress(name, time.monotonic(), time.monotonic(), start)
        with part.open("r+b" if start else "wb") as sink:
            sink.seek(start)
            done = start
            while chunk := answer.read(_CHUNK):
                sink.write(chunk)
                done += len(chunk)
                progress.tell(done, total)
            sink.truncate()
    if total is not None and done < total:
        raise OSError(f"the connection ended at {done} of {total} bytes")


def _place(answer: Any, have: int) -> tuple[int, int | None]:
    """Where in the file the answer's bytes belong, and the file's size."""
    if answer.status == 206:
        span, _, total = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] != str(have):
            raise OSError(f"the server sent another part than was asked for: {span}")
        return have, int(total) if total.isdigit() else None
    length = answer.headers.get("Content-Length")  # status 200: the whole file, whatever was asked for
    return 0, int(length) if length else None


def _version(answer: Any) -> str | None:
    """What `If-Range` may say: a strong ETag, else the date of change."""
    tag = answer.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")


def _publish(part: Path, target: Path, expected: Expected) -> str:
    found = storage.sha256(str(part))
    try:
        check(part, found, expected)
    except WrongContent:
        part.unlink()
        raise
    finally:
        part.with_name(part.name + ".json").unlink(missing_ok=True)
    os.replace(part, target)
    return found


def check(file: Path, found: str, expected: Expected) -> None:
    """Compare a file with what is known of it.

    Raises:
        WrongContent: its size or digest differs.
    """
    size = file.stat().st_size
    if expected.size is not None and size != expected.size:
        raise WrongContent(f"{size:,} bytes arrived, {expected.size:,} are published")
    if expected.sha256 is not None and found != expected.sha256:
        raise WrongContent(f"its sha256 is {found}, not {expected.sha256}")
