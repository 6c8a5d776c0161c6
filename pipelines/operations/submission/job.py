"""Which job a verb and its configuration are, and whether they can run away from this machine."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.paths import config_paths
from pipelines.core.steps import canonical, digest_of


@dataclasses.dataclass(frozen=True)
class Job:
    """A verb with everything that decides what it results in.

    Attributes:
        verb: of `jobs`.
        arguments: its command line.
        config: what they resolve to.
        steps: the configurations inside it that are other verbs', by their dotted place: a pipeline's.
    """

    verb: str
    arguments: Sequence[str]
    config: Any
    steps: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The submission id of its first attempt. How it runs (batch sizes of inference, the address of Ray, …) does
        not count, as for the steps' folders; where its results go does."""
        return f"lion-{self.verb}-{digest_of({'verb': self.verb, 'config': canonical(self.config)})[:12]}"


def require_portable(job: Job, shipped: Sequence[str]) -> None:
    """Refuse what means something else, or nothing, on the cluster's machines.

    Args:
        job: what is to be submitted.
        shipped: files of the job's working directory, relative to it.

    Raises:
        UserError: results would be lost with the job's working directory, or an input is a file of this machine alone.
    """
    out = getattr(job.config, "out", None)
    if isinstance(out, str) and not _everywhere(out):
        raise UserError(
            f"--out is {out!r}, a folder in the job's working directory, which the cluster deletes; give a URI such as "
            f"s3://bucket/runs, or an absolute path that all its machines share, such as {os.path.abspath(out)}."
        )
    lost = [f"{name} ({value})" for name, value in _local_paths(job) if not _shipped(value, shipped)]
    if lost:
        raise UserError(
            f"{', '.join(lost)}: not part of the repository's tracked files, so the job would not find it; give a URI, "
            "or an absolute path that all the cluster's machines share."
        )


def _everywhere(path: str) -> bool:
    return storage.is_remote(path) or os.path.isabs(os.path.expanduser(path.removeprefix("file://")))


def _local_paths(job: Job) -> Iterator[tuple[str, str]]:
    """Relative paths in a configuration that lead to something here; other texts may be names of a model."""
    places = [*config_paths(job.config)]
    for prefix, config in job.steps.items():
        places += config_paths(config, f"{prefix}.")
    for place in places:
        if place.role == "output" or place.sent or place.is_reference:
            continue
        if not _everywhere(place.text) and os.path.exists(os.path.expanduser(place.text)):
            yield place.field, place.text


def _shipped(path: str, shipped: Sequence[str]) -> bool:
    name = os.path.normpath(path)
    return any(one == name or one.startswith(f"{name}/") for one in shipped)
