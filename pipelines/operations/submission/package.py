"""What a job is run with: the repository's files as they are here, and the configuration files that it names."""

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.steps import digest_of
from pipelines.core.storage import is_remote

_ROOT = Path(__file__).resolve().parents[3]
# What no job reads; .gitignore would make Ray leave out tracked files that it names.
_LEFT_OUT = ("tests/", "docs/", ".ci/", ".gitignore")
# Beyond so much, Ray's dashboard refuses an upload.
LIMIT = 100 * 2**20
_CONFIG = "--config"
_SENT = "submitted"  # the folder of configuration files that are no part of the repository


@dataclasses.dataclass(frozen=True)
class Package:
    """A job's working directory, made ready.

    Attributes:
        folder: where it lies.
        arguments: of the verb, with configuration files named as they are in the folder.
    """

    folder: Path
    arguments: list[str]


def make_package(
    arguments: Sequence[str], target: Path, root: Path = _ROOT, limit: int = LIMIT, options: Sequence[str] = ()
) -> Package:
    """Copy the repository's tracked files, changed ones as they are, without tests and documents.

    Args:
        arguments: of the verb.
        target: an empty folder.
        root: of the repository.
        limit: bytes that the working directory may have.
        options: of the verb, that name configuration files beside `--config`.

    Raises:
        UserError: there is no git checkout, or it is larger than Ray accepts.
    """
    names = tracked(root)
    sizes = {name: (root / name).stat().st_size for name in names}
    if sum(sizes.values()) > limit:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:5]
        raise UserError(
            f"The repository's tracked files have {sum(sizes.values()) / 2**20:.1f} MiB, and a job's working directory "
            f"may have {limit / 2**20:.0f}. The largest are "
            + ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in largest)
            + "; keep data and weights where the cluster reads them, and out of git."
        )
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, target / name)
    return Package(target, _with_files(arguments, target, set(names), root, {_CONFIG, *options}))


def tracked(root: Path = _ROOT) -> list[str]:
    """Return the tracked files that a job may read, relative to the root.

    Raises:
        UserError: it is no git checkout.
    """
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"{root} is no git checkout, so what belongs to it is not known; submit from a checkout, or by "
            "`ray job submit --working-dir . -- python -m jobs.VERB …`."
        ) from error
    names = [name for name in listed.split("\0") if name and not name.startswith(_LEFT_OUT)]
    return [name for name in names if (root / name).is_file()]


def untracked_code(root: Path = _ROOT) -> list[str]:
    """Modules that lie in the packages and are not tracked, so that a job does not have them."""
    command = ["git", "ls-files", "-z", "--others", "--exclude-standard", "--", "models", "pipelines", "jobs"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name]


def _with_files(arguments: Sequence[str], target: Path, names: set[str], root: Path, options: set[str]) -> list[str]:
    """The arguments, with every configuration file that is not tracked copied into the folder and named there."""
    changed: list[str] = []
    before = ""
    for word in arguments:
        option, equals, value = word.partition("=")
        if equals and option in options:
            changed.append(f"{option}={_sent(value, target, names, root)}")
        else:
            changed.append(_sent(word, target, names, root) if before in options else word)
        before = word
    return changed


def _sent(name: str, target: Path, names: set[str], root: Path) -> str:
    path = Path(name).expanduser()
    if is_remote(name) or not path.is_file():
        return name
    inside = os.path.relpath(path.resolve(), root)
    if inside in names:
        return inside
    content = path.read_text()
    sent = Path(_SENT) / f"{path.stem}-{digest_of(content)[:8]}{path.suffix}"
    (target / sent).parent.mkdir(exist_ok=True)
    (target / sent).write_text(content)
    return str(sent)
