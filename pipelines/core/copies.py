"""Copies of models between object stores and local disks.

Libraries load weights from local folders only. Each machine downloads a model once and keeps it in a cache. The name in
the cache depends on the files' names, sizes and modification times, so a changed model is downloaded again. The copy
gets its name when it is complete: a crash leaves no half copy under it.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.steps import StepFolder

_COMPLETE = ".complete.json"


def cache_folder(*parts: str) -> str:
    """Return a folder in the user's cache (`$XDG_CACHE_HOME`, else `~/.cache`); create it if it is missing."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = os.path.join(home, "dynamic-lion", *parts)
    os.makedirs(path, exist_ok=True)
    return path


def local_copy(uri: str) -> str:
    """Return the local path of a file or folder; a remote one is first copied to this machine's cache.

    Raises:
        UserError: it does not exist, or cannot be read.
    """
    return _copied(uri) if storage.is_remote(uri) else storage.absolute(uri)


@functools.lru_cache(maxsize=64)  # within one process a model stays the same, even if it changes in the store
def _copied(uri: str) -> str:
    uri = storage.absolute(uri)
    try:
        exists = storage.exists(uri)
    except OSError as error:
        raise UserError(
            f"{uri} cannot be read ({error}); check the path, and the credentials of this machine."
        ) from error
    if not exists:
        raise UserError(f"{uri} does not exist; check the path.")
    single = not storage.is_folder(uri)
    state = storage.file_states(uri)
    key = hashlib.sha256(repr((uri, state)).encode()).hexdigest()[:24]
    base = os.path.basename(uri)
    target = os.path.join(cache_folder("copies", key), base)
    with open(f"{target}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process of the machine copies, the others wait
        if not os.path.exists(target):
            partial = f"{target}.{uuid.uuid4().hex[:8]}.partial"
            if single:
                storage.copy_file(uri, partial)
            else:
                storage.download_folder(uri, partial)
            os.rename(partial, target)
    return target


def share_model(model: str, folder: StepFolder, name: str) -> str:
    """Return a path or URI from which every worker of a step can load a model of the driver's machine.

    If the step's folder is in an object store, the machines may not share a disk: the model is uploaded to that folder.

    Args:
        model: the model's local folder.
        folder: the step's folder.
        name: the name of the uploaded copy.

    Returns:
        An argument for `local_copy` on any machine.
    """
    if not storage.is_remote(folder.path):
        return model
    target = folder.child("start", name)
    marker = target + _COMPLETE
    if not storage.exists(marker):
        storage.upload_folder(model, target)
        storage.write_json(marker, {"files": len(storage.list_files(target))})
    return target


@contextlib.contextmanager
def local_results(folder: StepFolder) -> Iterator[StepFolder]:
    """Give a local version of a step's folder, for libraries that can write local files only.

    If the step's folder is in an object store, the files are uploaded when the block ends without an error.
    """
    if not storage.is_remote(folder.path):
        yield folder
        return
    with tempfile.TemporaryDirectory() as local:
        yield StepFolder(folder.step, local, folder.hash)
        storage.upload_folder(local, folder.path)
