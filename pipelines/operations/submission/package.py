"""Packaging of a job: a copy of the repository's tracked files and of the configuration files that the job names."""

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipelines.core.config_files import resolved_text
from pipelines.core.errors import UserError
from pipelines.core.steps import digest_of
from pipelines.core.storage import is_remote

_ROOT = Path(__file__).resolve().parents[3]
# No job reads these. With a .gitignore, Ray would leave out tracked files that it lists.
_LEFT_OUT = ("tests/", "docs/", ".ci/", ".gitignore")
LIMIT = 100 * 2**20  # bytes; Ray's dashboard refuses a larger upload
_CONFIG = "--config"
_SENT = "submitted"  # folder, in the package, for configuration files from outside the repository


@dataclasses.dataclass(frozen=True)
class Package:
    """The working directory of a job.

    Attributes:
        folder: local path of the directory.
        arguments: the verb's command line, with the paths that configuration files have in the directory.
    """

    folder: Path
    arguments: list[str]


def make_package(
    arguments: Sequence[str], target: Path, root: Path = _ROOT, limit: int = LIMIT, options: Sequence[str] = ()
) -> Package:
    """Copy the tracked files of the repository to a folder, with uncommitted changes, without tests and documents.

    Args:
        arguments: the verb's command line.
        target: an empty folder for the copy.
        root: root folder of the repository.
        limit: largest size of the working directory in bytes.
        options: further options of the verb, besides `--config`, whose values are configuration files.

    Raises:
        UserError: the root is not a git checkout, or its tracked files are larger than the limit.
    """
    names = tracked(root)
    sizes = {name: (root / name).stat().st_size for name in names}
    if sum(sizes.values()) > limit:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:5]
        raise UserError(
            f"The repository's tracked files have {sum(sizes.values()) / 2**20:.1f} MiB, but a job's working directory "
            f"may have {limit / 2**20:.0f}. The largest are "
            + ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in largest)
            + "; move data and weights out of git, to storage that the cluster reads."
        )
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, target / name)
    return Package(target, _with_files(arguments, target, set(names), root, {_CONFIG, *options}))


def tracked(root: Path = _ROOT) -> list[str]:
    """Return the tracked files that a job may read, relative to the root.

    Raises:
        UserError: the root is not a git checkout.
    """
    try:
        output = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"{root} is no git checkout, so its tracked files are unknown; submit from a checkout, or with "
            "`ray job submit --working-dir . -- python -m jobs.VERB …`."
        ) from error
    names = [name for name in output.split("\0") if name and not name.startswith(_LEFT_OUT)]
    return [name for name in names if (root / name).is_file()]


def untracked_code(root: Path = _ROOT) -> list[str]:
    """Return files of the packages that git does not track, so that a job does not get them; relative to the root."""
    command = ["git", "ls-files", "-z", "--others", "--exclude-standard", "--", "models", "pipelines", "jobs"]
    output = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return [name for name in output.split("\0") if name]


def _with_files(arguments: Sequence[str], target: Path, names: set[str], root: Path, options: set[str]) -> list[str]:
    """Copy untracked configuration files into the folder and return the command line with their new paths."""
    changed: list[str] = []
    previous = ""
    for word in arguments:
        option, equals, value = word.partition("=")
        if equals and option in options:
            changed.append(f"{option}={_send_file(value, target, names, root, option == _CONFIG)}")
        else:
            sent = previous in options
            changed.append(_send_file(word, target, names, root, previous == _CONFIG) if sent else word)
        previous = word
    return changed


def _send_file(name: str, target: Path, names: set[str], root: Path, includes: bool) -> str:
    """Return a file's path in the package, after copying it there if it is not tracked; URIs stay unchanged.

    A configuration that includes other files is sent as one file: their paths may not exist on the cluster.

    Args:
        name: the file, as on the command line.
        target: the folder of the package.
        names: the tracked files, relative to the root.
        root: the folder of the repository.
        includes: whether the file is a configuration, which may include others.
    """
    path = Path(name).expanduser()
    if is_remote(name) or not path.is_file():
        return name
    text = resolved_text(str(path)) if includes else None
    inside = os.path.relpath(path.resolve(), root)
    if text is None and inside in names:
        return inside
    content = path.read_text() if text is None else text
    # The hash separates files of equal name.
    sent = Path(_SENT) / f"{path.stem}-{digest_of(content)[:8]}{path.suffix}"
    (target / sent).parent.mkdir(exist_ok=True)
    (target / sent).write_text(content)
    return str(sent)
