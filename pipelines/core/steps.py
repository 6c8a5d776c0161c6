"""Steps: a function and a frozen configuration, whose result is a folder with a manifest.

The folder's name contains a hash of the configuration and of the inputs' digests. A changed configuration therefore
never mixes with old results, and a finished step is skipped when it is run again (P7). `manifest.json` is written last:
it proves that the step is complete. All files before it are either resumed or overwritten by the next attempt.
"""

import contextlib
import dataclasses
import datetime
import enum
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import UserError

MANIFEST = "manifest.json"
_LOCK = ".lock"
_VERSIONED = ("ray", "torch", "transformers", "deepspeed", "sentence-transformers", "mlflow", "pyarrow")


def runtime_field(default: Any = dataclasses.MISSING, **kwargs: Any) -> Any:
    """Return a configuration field that does not change a step's result; it is not part of the hash.

    Examples are batch sizes of inference, numbers of actors, and limits. A killed or refused step can be resumed with
    other values.
    """
    return dataclasses.field(default=default, metadata={"runtime": True}, **kwargs)


def later_field(default: Any, **kwargs: Any) -> Any:
    """Return a field that was added to an existing configuration; at its default it is not part of the hash.

    Results from before the field existed therefore keep their hash, and their steps are skipped.
    """
    return dataclasses.field(default=default, metadata={"later": True}, **kwargs)


def runtime_group(factory: Callable[[], Any]) -> Any:
    """Return a `runtime_field` that is a nested configuration."""
    return dataclasses.field(default_factory=factory, metadata={"runtime": True})


@dataclasses.dataclass(frozen=True)
class StepResult:
    """Result of a verb, which the command line prints as its last line.

    Attributes:
        step: the name of the step.
        path: the folder or URI of the result.
        skipped: whether the step was complete before this run.
        summary: further entries of the printed line, such as counts and metrics.
        lines: text that is printed before that line.
        exit_code: the exit code of the process; not 0 if the verb succeeded and reports a problem (`doctor`).
    """

    step: str
    path: str
    skipped: bool
    summary: Mapping[str, Any]
    lines: Sequence[str] = ()
    exit_code: int = 0

    def as_json(self) -> str:
        """Return the result as one line of JSON."""
        head = {"step": self.step, "path": self.path, "skipped": self.skipped}
        return json.dumps({**head, **{k: v for k, v in self.summary.items() if k not in head}}, ensure_ascii=False)


@dataclasses.dataclass(frozen=True)
class StepFolder:
    """Folder in which a running step writes its result.

    Attributes:
        step: the name of the step.
        path: the folder or URI.
        hash: the full hash of the configuration and inputs; the folder's name has the first 12 digits.
    """

    step: str
    path: str
    hash: str

    def child(self, *parts: str) -> str:
        """Return the URI of a file or folder inside the folder."""
        return storage.join(self.path, *parts)


def canonical(value: Any) -> Any:
    """Return a configuration as plain JSON values, without runtime fields and without later fields at their defaults.

    1.0 is written as 1 so that equal settings get equal hashes.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = [field for field in dataclasses.fields(value) if _is_hashed(field, getattr(value, field.name))]
        return {field.name: canonical(getattr(value, field.name)) for field in kept}
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _is_hashed(field: "dataclasses.Field[Any]", value: Any) -> bool:
    later = field.metadata.get("later") and value == field.default
    return not (field.metadata.get("runtime") or later)


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a JSON-like value; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def fingerprint(uri: str) -> str:
    """Return the digest of an input: of a step's manifest, of a file's content, or of the files of another folder.

    Raises:
        UserError: the input does not exist, or it is the folder of an unfinished step.
    """
    uri = storage.absolute(uri)
    if not storage.exists(uri):
        raise UserError(f"{uri} does not exist; check the path.")
    if not storage.is_folder(uri):
        return storage.sha256(uri)
    manifest = storage.join(uri, MANIFEST)
    if storage.exists(manifest):
        return str(storage.read_json(manifest)["digest"])
    if storage.exists(storage.join(uri, _LOCK)):
        raise UserError(f"{uri} is the folder of a step that has not finished; run that step again first.")
    files = [name for name in storage.list_files(uri) if not os.path.basename(name).startswith(".")]
    return digest_of([(name.removeprefix(uri), storage.sha256(name)) for name in files])


def read_manifest(folder: str) -> dict[str, Any]:
    """Return the manifest of a finished step.

    Raises:
        UserError: the folder is not that of a finished step.
    """
    path = storage.join(storage.absolute(folder), MANIFEST)
    if not storage.exists(path):
        raise UserError(f"{folder} has no {MANIFEST}: it is not the folder of a finished step; pass the step's `path`.")
    return storage.read_json(path)


def git_commit() -> str | None:
    """Return the commit of the running code, with a `+` if files are changed; None outside a git checkout."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # Without .git, git would search the parent folders and could return the commit of another repository.
    if not os.path.exists(os.path.join(root, ".git")):
        return os.environ.get("LION_GIT_COMMIT")  # `submit` and the container image set it
    try:
        run = {"cwd": root, "capture_output": True, "text": True, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **run).stdout.strip()  # type: ignore[call-overload]
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], **run).stdout  # type: ignore[call-overload]
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed.strip() else "")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that a result depends on."""
    installed = {"python": platform.python_version()}
    for name in _VERSIONED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


@contextlib.contextmanager
def step_lock(folder: StepFolder) -> Iterator[None]:
    """Lock the folder against other processes of this machine. The system removes the lock when the process ends.

    For a folder in an object store this is a no-op, because object stores have no locks.

    Raises:
        UserError: another process has the lock.
    """
    if storage.is_remote(folder.path):
        yield
        return
    import fcntl

    storage.make_folder(folder.path)
    path = folder.child(_LOCK)
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"Another process is running {folder.step} in {folder.path}; wait for it or end it."
            ) from error
        yield


def run_step(
    step: str,
    config: Any,
    out: str,
    work: Callable[[StepFolder], Mapping[str, Any]],
    inputs: Mapping[str, str] | None = None,
    version: int = 1,
) -> StepResult:
    """Run `work` and write the manifest. If the step is complete already, return its result.

    Args:
        step: the step's name, with which the folder's name begins.
        config: a frozen dataclass; runtime fields and `out` are not part of the hash.
        out: the parent folder or URI of the step's folder.
        work: writes files into the folder and returns the manifest's entries: `rows`, `files` (a list of
            `{"path", "rows", "sha256"}` with relative paths) and other descriptions of the result. The entries of
            `summary` are also printed as part of the JSON line.
        inputs: the path or URI of each input that determines the result, by name.
        version: the version of the step's code. Raise it when a change of the code changes results.

    Raises:
        UserError: an input is missing, or another process runs the same step.
    """
    digests = {name: fingerprint(path) for name, path in (inputs or {}).items()}
    settings = {key: value for key, value in canonical(config).items() if key != "out"}
    for name in digests:
        settings.pop(name, None)  # an input is identified by its content, not by its path
    identity = digest_of({"step": step, "version": version, "config": settings, "inputs": digests})
    folder = StepFolder(step, storage.join(storage.absolute(out), f"{step}-{identity[:12]}"), identity)
    manifest_path = folder.child(MANIFEST)
    if storage.exists(manifest_path):
        return _result(step, folder, storage.read_json(manifest_path), skipped=True)
    with step_lock(folder):
        if storage.exists(manifest_path):  # another process finished it between the check and the lock
            return _result(step, folder, storage.read_json(manifest_path), skipped=True)
        entries = dict(work(folder))
        paths = {name: storage.absolute(path) for name, path in (inputs or {}).items()}
        manifest = _manifest(folder, settings, paths, digests, entries)
        storage.write_json(manifest_path, manifest)
    return _result(step, folder, manifest, skipped=False)


def _manifest(
    folder: StepFolder,
    settings: Mapping[str, Any],
    paths: Mapping[str, str],
    digests: Mapping[str, str],
    entries: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the manifest.

    Its digest covers the step's hash, rows and files, but not the time, the place or the commit: the same step run
    twice is the same input for later steps.
    """
    digest = digest_of({"hash": folder.hash, "rows": entries.get("rows"), "files": entries.get("files")})
    return {
        "step": folder.step,
        "hash": folder.hash,
        "digest": digest,
        "rows": entries.get("rows"),
        **{key: value for key, value in entries.items() if key != "rows"},
        "config": settings,
        "inputs": {name: {"path": paths[name], "digest": digests[name]} for name in digests},
        "versions": versions(),
        "git_commit": git_commit(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _result(step: str, folder: StepFolder, manifest: Mapping[str, Any], skipped: bool) -> StepResult:
    summary = {"rows": manifest.get("rows"), **manifest.get("summary", {})}
    return StepResult(step, folder.path, skipped, summary)
