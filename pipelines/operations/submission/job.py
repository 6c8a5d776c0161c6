"""A verb and its configuration as a job, and the check that it can run on other machines."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.paths import config_paths
from pipelines.core.steps import canonical, digest_of


@dataclasses.dataclass(frozen=True)
class JobRequest:
    """A verb with its command line and its configuration.

    Attributes:
        verb: name of a module of `jobs`.
        arguments: the verb's command line.
        config: the typed configuration that the command line resolves to.
        steps: the typed configurations of a pipeline's steps, by dotted field, such as `steps.tagged.config`.
    """

    verb: str
    arguments: Sequence[str]
    config: Any
    steps: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Submission id of the first attempt: the verb and a hash of the configuration.

        As in the names of step folders, settings that do not change the result (inference batch size, Ray address) are
        not hashed. The folder of the results is.
        """
        # The same command gives the same id, so that it follows its job instead of starting another.
        return f"lion-{self.verb}-{digest_of({'verb': self.verb, 'config': canonical(self.config)})[:12]}"


def require_portable(job: JobRequest, shipped: Sequence[str]) -> None:
    """Check that all paths of a job exist on the cluster's machines too.

    Args:
        job: the job to submit.
        shipped: files of the job's working directory, relative to it.

    Raises:
        UserError: results would be deleted with the job's working directory, or an input exists only on this machine.
    """
    out = getattr(job.config, "out", None)
    if isinstance(out, str) and not _is_shared(out):
        raise UserError(
            f"--out is {out!r}, a folder in the job's working directory, which the cluster deletes. Give a URI such as "
            f"s3://bucket/runs, or an absolute path that all its machines share, such as {os.path.abspath(out)}."
        )
    local_only = [f"{name} ({value})" for name, value in _local_paths(job) if not _shipped(value, shipped)]
    if local_only:
        raise UserError(
            f"{', '.join(local_only)}: not part of the repository's tracked files, so the job cannot read it; give a "
            "URI, or an absolute path that all the cluster's machines share."
        )


def _is_shared(path: str) -> bool:
    """Return whether a path is a URI or absolute, so that it can mean the same on all machines."""
    return storage.is_remote(path) or os.path.isabs(os.path.expanduser(path.removeprefix("file://")))


def _local_paths(job: JobRequest) -> Iterator[tuple[str, str]]:
    """Yield (field, path) of relative inputs that exist on this machine; other texts may be names of models."""
    paths = [*config_paths(job.config)]
    for prefix, config in job.steps.items():
        paths += config_paths(config, f"{prefix}.")
    for path in paths:
        if path.role == "output" or path.sent or path.is_reference:
            continue
        if not _is_shared(path.text) and os.path.exists(os.path.expanduser(path.text)):
            yield path.field, path.text


def _shipped(path: str, shipped: Sequence[str]) -> bool:
    name = os.path.normpath(path)
    return any(file == name or file.startswith(f"{name}/") for file in shipped)
