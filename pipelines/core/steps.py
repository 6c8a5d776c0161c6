"""Steps: a function and a frozen configuration, with a result folder that is complete when its manifest is there.

The folder's name carries a hash of the configuration and of the inputs' digests. A finished step run again does
nothing (P7), a changed configuration never mixes with old results, and `manifest.json`, published last, is the proof of
completion. Everything a step writes before that is either resumable by the step itself or written over.
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
    """Return a configuration field that says how a step runs, not what it results in; it takes no part in the hash.

    Batch sizes of inference, numbers of actors and limits are such fields: a step refused or killed is continued with
    other values of them.
    """
    return dataclasses.field(default=default, metadata={"runtime": True}, **kwargs)


def later_field(default: Any, **kwargs: Any) -> Any:
    """Return a configuration field that steps had no need of before: at its default it takes no part in the hash.

    So results from before the field existed are found again.
    """
    return dataclasses.field(default=default, metadata={"later": True}, **kwargs)


def runtime_group(factory: Callable[[], Any]) -> Any:
    """Like `runtime_field`, for a nested configuration."""
    return dataclasses.field(default_factory=factory, metadata={"runtime": True})


@dataclasses.dataclass(frozen=True)
class StepResult:
    """What a verb prints as its last line: where the result is, whether it was there already, and its counts.

    `lines` are printed before it: what the user asked to read. `exit_code` is the process's: not 0 where a verb that
    did its work has bad news.
    """

    step: str
    path: str
    skipped: bool
    summary: Mapping[str, Any]
    lines: Sequence[str] = ()
    exit_code: int = 0

    def as_json(self) -> str:
        """One line of JSON."""
        head = {"step": self.step, "path": self.path, "skipped": self.skipped}
        return json.dumps({**head, **{k: v for k, v in self.summary.items() if k not in head}}, ensure_ascii=False)


@dataclasses.dataclass(frozen=True)
class StepFolder:
    """The folder a running step writes to."""

    step: str
    path: str
    hash: str

    def child(self, *parts: str) -> str:
        """Return the URI of something inside the folder."""
        return storage.join(self.path, *parts)


def canonical(value: Any) -> Any:
    """Return a configuration as plain JSON values, without its runtime fields and later fields at their defaults.

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
    """Return the SHA-256 of a JSON-like value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def fingerprint(uri: str) -> str:
    """What identifies an input: a step's folder by its manifest, a file by its content, another folder by its files.

    Raises:
        UserError: nothing is there, or it is the folder of a step that did not finish.
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
        raise UserError(f"{uri} holds a step that has not finished; run that step again first.")
    files = [name for name in storage.list_files(uri) if not os.path.basename(name).startswith(".")]
    return digest_of([(name.removeprefix(uri), storage.sha256(name)) for name in files])


def read_manifest(folder: str) -> dict[str, Any]:
    """Return the manifest of a finished step.

    Raises:
        UserError: the folder is not a finished step's.
    """
    path = storage.join(storage.absolute(folder), MANIFEST)
    if not storage.exists(path):
        raise UserError(f"{folder} has no {MANIFEST}: it is not the folder of a finished step; give the step's `path`.")
    return storage.read_json(path)


def git_commit() -> str | None:
    """The commit of the code that runs, with `+` behind it where the tree was changed; None outside a checkout."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if not os.path.exists(os.path.join(root, ".git")):  # where a job was unpacked, git may find somebody else's
        return os.environ.get("LION_GIT_COMMIT")  # set by whoever ships the code without its history
    try:
        run = {"cwd": root, "capture_output": True, "text": True, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **run).stdout.strip()  # type: ignore[call-overload]
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], **run).stdout  # type: ignore[call-overload]
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed.strip() else "")


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@contextlib.contextmanager
def step_lock(folder: StepFolder) -> Iterator[None]:
    """Keep a second process of this machine out of the folder; the lock dies with its owner, however that ends."""
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
    """Run `work` unless its result is there already, then publishes the manifest.

    Args:
        step: the step's name, which becomes the folder's.
        config: a frozen dataclass; its runtime fields (and `out`) take no part in the folder's hash.
        out: the folder or URI under which the step's folder lies.
        work: writes into the folder and returns the manifest's entries: at least `rows`; `files` (a list of
            `{"path", "rows", "sha256"}`, relative paths) and whatever else describes the result. Keys under
            `summary` go to the JSON line.
        inputs: name → path of everything that is read and that decides the result.
        version: raised when the code of a step changes what it results in.

    Raises:
        UserError: an input is missing, or another process runs the same step.
    """
    digests = {name: fingerprint(path) for name, path in (inputs or {}).items()}
    settings = {key: value for key, value in canonical(config).items() if key != "out"}
    for name in digests:
        settings.pop(name, None)  # an input counts by its content, not by where it lies
    identity = digest_of({"step": step, "version": version, "config": settings, "inputs": digests})
    folder = StepFolder(step, storage.join(storage.absolute(out), f"{step}-{identity[:12]}"), identity)
    manifest_path = folder.child(MANIFEST)
    if storage.exists(manifest_path):
        return _result(step, folder, storage.read_json(manifest_path), skipped=True)
    with step_lock(folder):
        if storage.exists(manifest_path):  # finished by another process while this one waited at the door
            return _result(step, folder, storage.read_json(manifest_path), skipped=True)
        found = dict(work(folder))
        paths = {name: storage.absolute(path) for name, path in (inputs or {}).items()}
        manifest = _manifest(folder, settings, paths, digests, found)
        storage.write_json(manifest_path, manifest)
    return _result(step, folder, manifest, skipped=False)


def _manifest(
    folder: StepFolder,
    settings: Mapping[str, Any],
    paths: Mapping[str, str],
    digests: Mapping[str, str],
    found: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the manifest; its digest covers what the step is and what it left, not when, where or by which commit."""
    digest = digest_of({"hash": folder.hash, "rows": found.get("rows"), "files": found.get("files")})
    return {
        "step": folder.step,
        "hash": folder.hash,
        "digest": digest,
        "rows": found.get("rows"),
        **{key: value for key, value in found.items() if key != "rows"},
        "config": settings,
        "inputs": {name: {"path": paths[name], "digest": digests[name]} for name in digests},
        "versions": versions(),
        "git_commit": git_commit(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _result(step: str, folder: StepFolder, manifest: Mapping[str, Any], skipped: bool) -> StepResult:
    summary = {"rows": manifest.get("rows"), **manifest.get("summary", {})}
    return StepResult(step, folder.path, skipped, summary)
