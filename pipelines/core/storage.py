"""Reading and writing of files on local disks and in object stores (`s3://`, `gs://`), through `pyarrow.fs`.

All functions retry transient errors of an object store for `PATIENCE` seconds: a job that fails loses more time.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from pipelines.core.errors import UserError

log = logging.getLogger("lion.storage")
T = TypeVar("T")
PATIENCE = 300.0
_CHUNK = 1 << 20
_BUCKETS = ("s3", "gs")
_CLIENT_SETTINGS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_DEFAULT_REGION")
# pyarrow raises OSError for all errors of an object store; only the text tells which are transient (overload, outage,
# network). Other errors, such as a denied access, are raised immediately.
_PASSING = re.compile(
    r"HTTP status (408|429|5\d\d)|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|NETWORK_CONNECTION|REQUEST_TIMEOUT|"
    r"THROTTLING|Retry policy exhausted"
)
_patience: ContextVar[float] = ContextVar("patience", default=PATIENCE)


class Unavailable(OSError):
    """An object store that returned transient errors for longer than the time limit."""


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Set the time limit of retries in this thread, in seconds."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def retry_transient(function: Callable[..., T]) -> Callable[..., T]:
    """Return a function that calls `function` again while the object store of its URI arguments has transient errors.

    A loop instead of `tenacity`: served models import this module too, so a package for retries would have to be
    installed with each of them, and the rules (error texts, time limit, final message) would still be here.

    Raises:
        Unavailable: the errors lasted longer than the time limit; see `patience`.
    """

    @functools.wraps(function)
    def patient(*arguments: Any, **named: Any) -> T:
        uri = next((value for value in arguments if isinstance(value, str) and is_remote(value)), None)
        begun, pause = time.monotonic(), 0.5
        while True:
            try:
                return function(*arguments, **named)
            except OSError as error:
                if isinstance(error, Unavailable) or uri is None or not _PASSING.search(str(error)):
                    raise
                waited = time.monotonic() - begun
                if waited + pause > _patience.get():
                    raise Unavailable(
                        f"{uri}: the object store has returned nothing but errors for {waited:.0f} s ({error}); run "
                        "the same command again when the store is available: it resumes."
                    ) from error
                log.warning("%s: %s; retrying in %.1f s", uri, str(error)[:200], pause)
                time.sleep(pause)
                pause = min(2 * pause, 10.0)

    return patient


def is_remote(uri: str) -> bool:
    """Return whether a URI is in an object store rather than on a local disk."""
    return "://" in uri and not uri.startswith("file://")


def absolute(uri: str) -> str:
    """Return a URI or an absolute path: Ray's workers have other working directories than the driver."""
    if is_remote(uri):
        return uri.rstrip("/")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def join(uri: str, *parts: str) -> str:
    """Append path parts to a URI."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of `uri` and the path inside it.

    Raises:
        UserError: pyarrow does not support the scheme.
    """
    if not is_remote(uri):
        return pafs.LocalFileSystem(), absolute(uri)
    scheme, _, rest = uri.partition("://")
    try:
        if scheme not in _BUCKETS or "?" in uri:
            return pafs.FileSystem.from_uri(uri)
        # The key is not parsed as a URI: names may contain spaces, `#` and `%`, which a parser would refuse or change.
        bucket, _, key = rest.partition("/")
        filesystem = _open_bucket(f"{scheme}://{bucket}", *(os.environ.get(name) for name in _CLIENT_SETTINGS))
        return filesystem, f"{bucket}/{key}".rstrip("/")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(
            f"{uri!r} cannot be opened ({error}); use a local path, s3://bucket/… or gs://bucket/…."
        ) from error


@functools.lru_cache(maxsize=32)
def _open_bucket(root: str, *settings: str | None) -> pafs.FileSystem:
    """Return the client of a bucket, from a cache because creating one takes longer than reading a file.

    `settings` are part of the cache's key only: a changed environment gets a new client.
    """
    return pafs.FileSystem.from_uri(root)[0]


@retry_transient
def exists(uri: str) -> bool:
    """Return whether a file or folder exists."""
    filesystem, path = resolve(uri)
    return filesystem.get_file_info(path).type != pafs.FileType.NotFound


@retry_transient
def is_folder(uri: str) -> bool:
    """Return whether a URI is a folder (in an object store: a prefix of at least one object)."""
    filesystem, path = resolve(uri)
    return filesystem.get_file_info(path).type == pafs.FileType.Directory


@retry_transient
def read_bytes(uri: str) -> bytes:
    """Return the whole content of a file.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    filesystem, path = resolve(uri)
    with filesystem.open_input_stream(path) as stream:
        return stream.read()


def read_json(uri: str) -> Any:
    """Return the JSON document of a file."""
    return json.loads(read_bytes(uri))


def make_folder(uri: str) -> None:
    """Create a folder and its parents; a no-op in object stores, which have no folders."""
    if not is_remote(uri):
        os.makedirs(absolute(uri), exist_ok=True)


@retry_transient
def write_atomic(uri: str, content: bytes) -> None:
    """Write a file that readers see complete or not at all: by a rename locally, by a single PUT in object stores."""
    if is_remote(uri):
        filesystem, path = resolve(uri)
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
        return
    path = absolute(uri)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        raise


def write_json(uri: str, document: Any) -> None:
    """Write a document as indented JSON, atomically."""
    write_atomic(uri, (json.dumps(document, indent=2, ensure_ascii=False, sort_keys=False) + "\n").encode())


@retry_transient
def list_files(uri: str, suffix: str = "", recursive: bool = True) -> list[str]:
    """Return the sorted URIs of the files in a folder whose names end with `suffix`; empty if the folder is missing."""
    filesystem, root = resolve(uri)
    entries = filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True, recursive=recursive))
    base = absolute(uri)
    return sorted(
        join(base, entry.path[len(root.rstrip("/")) :])
        for entry in entries
        if entry.type == pafs.FileType.File and entry.path.endswith(suffix)
    )


@retry_transient
def delete_file(uri: str) -> None:
    """Delete a file; a no-op if it does not exist."""
    filesystem, path = resolve(uri)
    with contextlib.suppress(FileNotFoundError):
        filesystem.delete_file(path)


@retry_transient
def delete_folder(uri: str) -> None:
    """Delete a folder with its content; a no-op if it does not exist."""
    filesystem, path = resolve(uri)
    with contextlib.suppress(FileNotFoundError):
        filesystem.delete_dir(path)


@retry_transient
def file_states(uri: str) -> list[tuple[str, int, int]]:
    """Return name, size and modification time (ns) of a file, or of each file in a folder, to detect changes."""
    filesystem, root = resolve(uri)
    info = filesystem.get_file_info(root)
    entries = [info] if info.is_file else filesystem.get_file_info(pafs.FileSelector(root, recursive=True))
    return sorted(
        (entry.path.removeprefix(root), entry.size, entry.mtime_ns or 0) for entry in entries if entry.is_file
    )


@retry_transient
def copy_file(source: str, target: str) -> None:
    """Copy a file as a stream. A remote copy appears when it is complete; a local one grows under its name."""
    (reader, path), (writer, target_path) = resolve(source), resolve(target)
    if not is_remote(target):
        os.makedirs(os.path.dirname(absolute(target)), exist_ok=True)
    with reader.open_input_stream(path) as stream, writer.open_output_stream(target_path) as sink:
        while chunk := stream.read(_CHUNK * 8):
            sink.write(chunk)


def upload_folder(local: str, uri: str) -> None:
    """Copy the files of a local folder to a folder or prefix."""
    for name in list_files(local):
        copy_file(name, join(uri, name.removeprefix(absolute(local))))


def download_folder(uri: str, local: str) -> None:
    """Copy the files under a folder or prefix to a local folder."""
    for name in list_files(uri):
        copy_file(name, join(local, name.removeprefix(absolute(uri))))


@retry_transient
def sha256(uri: str) -> str:
    """Return the SHA-256 of a file's content, read as a stream.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    digest = hashlib.sha256()
    filesystem, path = resolve(uri)
    with filesystem.open_input_stream(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
