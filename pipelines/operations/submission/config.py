"""Configuration of `jobs.submit`. Only light imports, so that `--help` is fast."""

import dataclasses

DEFAULT_ADDRESS = "http://127.0.0.1:8265"


@dataclasses.dataclass(frozen=True)
class SubmitConfig:
    """Run a verb on a Ray cluster: python -m jobs.submit [options] -- VERB [the verb's options].

    The job's log goes to stderr. The last line of stdout is the job's JSON line, and the exit code is the job's exit
    code. The same command again follows a running job, prints the result of a finished one, and resumes a stopped or
    failed one.
    """

    command: list[str] = dataclasses.field(default_factory=list)
    """The verb and its options; on the command line, everything after `--`. Its --out, and every path in it that is not
    part of this repository, must be visible to all machines of the cluster: a URI, or an absolute path."""
    address: str | None = None
    """Address of the cluster's dashboard; empty: RAY_API_SERVER_ADDRESS if set, else http://127.0.0.1:8265."""
    detach: bool = False
    """Submit the job and return without waiting for its end."""
    stop: bool = False
    """Stop the job. A training saves a checkpoint first; the same command without --stop resumes it."""
    again: bool = False
    """Run a job that has succeeded once more, because its inputs have changed since."""
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    """Environment variables of the job. The dashboard shows them, so set secrets in the environment of the cluster's
    machines instead."""
    driver_cpus: float = 0.0
    """Logical CPUs that the job's driver process takes, on any node that has them; 0: the driver runs on the head."""
    stop_seconds: int = 900
    """Seconds that a stopped job has to save before it is killed."""
