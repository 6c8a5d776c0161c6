"""What `jobs.submit` is asked. Nothing heavy is imported here: `--help` reads it."""

import dataclasses

DEFAULT_ADDRESS = "http://127.0.0.1:8265"


@dataclasses.dataclass(frozen=True)
class SubmitConfig:
    """Runs a verb on a Ray cluster: python -m jobs.submit [options] -- VERB [the verb's options]

    The job's log goes to stderr, its JSON line is the last line of stdout, and its exit code is this command's own. The
    same command again follows a job that runs, says what a finished one left, and goes on with one that was stopped or
    failed.
    """

    command: list[str] = dataclasses.field(default_factory=list)
    """The verb and its options; on the command line what stands behind `--`. Its --out, and every path in it that is
    not part of this repository, is one that all machines of the cluster see: a URI, or an absolute path."""
    address: str | None = None
    """The cluster's dashboard; empty: RAY_API_SERVER_ADDRESS if set, else http://127.0.0.1:8265."""
    detach: bool = False
    """Submits and returns at once."""
    stop: bool = False
    """Stops this very job, which saves first where it is a training; submitting it again goes on from there."""
    again: bool = False
    """Runs a job once more that has succeeded, because what it reads has changed since."""
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    """Environment variables of the job. They are shown on the dashboard: secrets belong in the cluster's own
    environment."""
    driver_cpus: float = 0.0
    """Logical CPUs that the job's own process takes, on any node that has them; 0: it runs on the head."""
    stop_seconds: int = 900
    """Seconds that a stopped job has to save before it is killed."""
