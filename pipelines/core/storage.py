"""Files anywhere `pyarrow.fs` reaches: local paths, `s3://`, `gs://`. One place, so that no step cares which.

An object store that answers errors for a while is asked again for `PATIENCE` seconds, everywhere: what a job lost by
giving up would be more.
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
# In what pyarrow says of a request: the server is overloaded, out of order or out of reach. All else stays as it is.
_PASSING = re.compile(
    r"HTTP status (408|429|5\d\d)|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|NETWORK_CONNECTION|REQUEST_TIMEOUT|"
    r"THROTTLING|Retry policy exhausted"
)
_patience: ContextVar[float] = ContextVar("patience", default=PATIENCE)


class Unavailable(OSError):
    """An object store that answered errors for longer than anybody should wait."""


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Wait for an object store only so long, in this thread."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def retry_transient(function: Callable[..., T]) -> Callable[..., T]:
    """Return the function of one or more URIs, which is called again while an object store answers errors that pass.

    Raises:
        Unavailable: they did not pass.
    """

    @functools.wraps(function)
    def patient(*arguments: Any, **named: Any) -> T:
        uri = next((one for one in arguments if isinstance(one, str) and is_remote(one)), None)
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
                        f"{uri}: the object store has answered nothing but errors for {waited:.0f} s ({error}); run "
                        "the same command again when it is well: it goes on where it was."
                    ) from error
                log.warning("%s: %s; trying again in %.1f s", uri, str(error)[:200], pause)
                time.sleep(pause)
                pause = min(2 * pause, 10.0)

    return patient


def is_remote(uri: str) -> bool:
    """Whether `uri` names an object store rather than a file of this machine."""
    return "://" in uri and not uri.startswith("file://")


def absolute(uri: str) -> str:
    """`uri` as it means the same from any working directory (Ray's workers have another one)."""
    if is_remote(uri):
        return uri.rstrip("/")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def join(uri: str, *parts: str) -> str:
    """`uri` with path parts appended."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of `uri` and the path inside it.

    Raises:
        UserError: the scheme is not one that pyarrow opens.
    """
    if not is_remote(uri):
        return pafs.LocalFileSystem(), absolute(uri)
    scheme, _, rest = uri.partition("://")
    try:
        if scheme not in _BUCKETS or "?" in uri:
            return pafs.FileSystem.from_uri(uri)
        # Keys are taken as they are: names may hold spaces, `#` and `%`, which a URI parser refuses or turns.
        bucket, _, key = rest.partition("/")
        filesystem = _open_bucket(f"{scheme}://{bucket}", *(os.environ.get(name) for name in _CLIENT_SETTINGS))
        return filesystem, f"{bucket}/{key}".rstrip("/")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(
            f"{uri!r} cannot be opened ({error}); use a local path, s3://bucket/… or gs://bucket/…."
        ) from error


@functools.lru_cache(maxsize=32)
def _open_bucket(root: str, *settings: str | None) -> pafs.FileSystem:
    """A client of a bucket; kept, because making one takes longer than reading a file. `settings` only tell clients of
    different environments apart."""
    return pafs.FileSystem.from_uri(root)[0]


@retry_transient
def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    filesystem, path = resolve(uri)
    return filesystem.get_file_info(path).type != pafs.FileType.NotFound


@retry_transient
def is_folder(uri: str) -> bool:
    """Whether `uri` is a folder (on an object store: a prefix with something under it)."""
    filesystem, path = resolve(uri)
    return filesystem.get_file_info(path).type == pafs.FileType.Directory


@retry_transient
def read_bytes(uri: str) -> bytes:
    """Return the whole content of a file.

    Raises:
        FileNotFoundError: nothing is there.
    """
    filesystem, path = resolve(uri)
    with filesystem.open_input_stream(path) as stream:
        return stream.read()


def read_json(uri: str) -> Any:
    """Return the JSON document of a file."""
    return json.loads(read_bytes(uri))


def make_folder(uri: str) -> None:
    """Create the folder and its parents; on object stores folders need no creation."""
    if not is_remote(uri):
        os.makedirs(absolute(uri), exist_ok=True)


@retry_transient
def write_atomic(uri: str, content: bytes) -> None:
    """Write a file that readers see whole or not at all: a rename locally, a single PUT on object stores."""
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
    """`document` as readable JSON, atomically."""
    write_atomic(uri, (json.dumps(document, indent=2, ensure_ascii=False, sort_keys=False) + "\n").encode())


@retry_transient
def list_files(uri: str, suffix: str = "", recursive: bool = True) -> list[str]:
    """Files under a folder whose name ends with `suffix`, sorted, as URIs; none where the folder is missing."""
    filesystem, root = resolve(uri)
    found = filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True, recursive=recursive))
    base = absolute(uri)
    return sorted(
        join(base, info.path[len(root.rstrip("/")) :])
        for info in found
        if info.type == pafs.FileType.File and info.path.endswith(suffix)
    )


@retry_transient
def delete_file(uri: str) -> None:
    """Delete a file that may be gone already."""
    filesystem, path = resolve(uri)
    with contextlib.suppress(FileNotFoundError):
        filesystem.delete_file(path)


@retry_transient
def delete_folder(uri: str) -> None:
    """Delete a folder with everything in it; it may be gone already."""
    filesystem, path = resolve(uri)
    with contextlib.suppress(FileNotFoundError):
        filesystem.delete_dir(path)


@retry_transient
def state_of(uri: str) -> list[tuple[str, int, int]]:
    """Name, size and time of change of a file, or of each file under a folder: what tells two states of it apart."""
    filesystem, root = resolve(uri)
    info = filesystem.get_file_info(root)
    found = [info] if info.is_file else filesystem.get_file_info(pafs.FileSelector(root, recursive=True))
    return sorted((one.path.removeprefix(root), one.size, one.mtime_ns or 0) for one in found if one.is_file)


@retry_transient
def copy_file(source: str, target: str) -> None:
    """Copy a file as a stream; an object is there when all of it is, a local file from the start."""
    (come_from, path), (go_to, other) = resolve(source), resolve(target)
    if not is_remote(target):
        os.makedirs(os.path.dirname(absolute(target)), exist_ok=True)
    with come_from.open_input_stream(path) as stream, go_to.open_output_stream(other) as sink:
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
    """Return the content digest of a file, read as a stream.

    Raises:
        FileNotFoundError: nothing is there.
    """
    digest = hashlib.sha256()
    filesystem, path = resolve(uri)
    with filesystem.open_input_stream(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
