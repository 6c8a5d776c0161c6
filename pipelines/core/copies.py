"""Models in object stores: a copy on the machine that loads them, and a place that all workers of a step can read.

Libraries load weights from folders of their own machine. A copy is made once per machine and kept, under a name that
changes with the files' names, sizes and times; a crash leaves no half of it behind.
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

_DONE = ".complete.json"


def cache_folder(*parts: str) -> str:
    """Return a folder of this user's own that outlives the process, made where it is missing."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = os.path.join(home, "dynamic-lion", *parts)
    os.makedirs(path, exist_ok=True)
    return path


def local_copy(uri: str) -> str:
    """Return the local path of a file or folder: its own, or that of a copy.

    Raises:
        UserError: nothing lies there.
    """
    return _copied(uri) if storage.is_remote(uri) else storage.absolute(uri)


@functools.lru_cache(maxsize=64)  # a process that has loaded a model goes on with that one
def _copied(uri: str) -> str:
    uri = storage.absolute(uri)
    try:
        there = storage.exists(uri)
    except OSError as error:
        raise UserError(
            f"{uri} cannot be read ({error}); check the path, and the credentials of this machine."
        ) from error
    if not there:
        raise UserError(f"{uri} does not exist; check the path.")
    single = not storage.is_folder(uri)
    state = storage.state_of(uri)
    key = hashlib.sha256(repr((uri, state)).encode()).hexdigest()[:24]
    base = os.path.basename(uri)
    target = os.path.join(cache_folder("copies", key), base)
    with open(f"{target}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process of a machine copies, the others wait for it
        if not os.path.exists(target):
            partial = f"{target}.{uuid.uuid4().hex[:8]}.partial"
            if single:
                storage.copy_file(uri, partial)
            else:
                storage.download_folder(uri, partial)
            os.rename(partial, target)
    return target


def for_workers(model: str, folder: StepFolder, name: str) -> str:
    """Where the workers of a step find a model that lies on the driver's machine.

    Args:
        model: its local folder.
        folder: the step's; where it is in an object store, the machines need not share a disk, and the model is put
            beside the results.
        name: of the copy.

    Returns:
        What `local_copy` opens on every machine.
    """
    if not storage.is_remote(folder.path):
        return model
    target = folder.child("start", name)
    done = target + _DONE
    if not storage.exists(done):
        storage.upload_folder(model, target)
        storage.write_json(done, {"files": len(storage.list_files(target))})
    return target


@contextlib.contextmanager
def on_disk(folder: StepFolder) -> Iterator[StepFolder]:
    """A step's folder for work that writes local files alone; in an object store, they are sent there at the end."""
    if not storage.is_remote(folder.path):
        yield folder
        return
    with tempfile.TemporaryDirectory() as local:
        yield StepFolder(folder.step, local, folder.hash)
        storage.upload_folder(local, folder.path)
