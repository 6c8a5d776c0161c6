"""Submitting a job unless it runs or has succeeded, following its log, returning its result, and stopping it."""

import functools
import logging
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.core.errors import Stopped, UserError
from pipelines.core.paths import sent_options
from pipelines.core.steps import StepResult, git_commit
from pipelines.operations.submission.config import DEFAULT_ADDRESS, SubmitConfig
from pipelines.operations.submission.follow import JobLog, follow
from pipelines.operations.submission.job import JobRequest, require_portable
from pipelines.operations.submission.package import make_package, tracked, untracked_code

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

log = logging.getLogger("lion.submit")
_POLL = 0.5  # seconds between two requests for a job's status
_PATIENCE = 120.0  # seconds in which a cluster must accept a job after its dashboard answers
_SECRET = re.compile(r"(?i)(secret|token|passw|credential|access_?key|api_?key)")


def submit(config: SubmitConfig, job: JobRequest) -> StepResult:
    """Run the job on the cluster, follow it, or stop it, as `SubmitConfig` describes.

    Raises:
        UserError: no cluster answers, it refuses the token, or the job cannot run on other machines.
    """
    if secret := next(filter(_SECRET.search, config.env), None):
        raise UserError(
            f"env.{secret} looks like a secret, and the dashboard shows the variables of a job; set it in the "
            "environment of the cluster's machines instead (KubeRay: a Secret in envFrom)."
        )
    if not config.stop:
        require_portable(job, tracked())
    client = connect(config.address)
    last = last_attempt(client, job.name)
    if config.stop:
        return _stop(client, config, job.name, last)
    if last is not None and not last.status.is_terminal():
        log.info("%s is already running", last.submission_id)
        name = str(last.submission_id)
    elif last is not None and last.status == "SUCCEEDED" and not config.again:
        log.info("%s has already succeeded; if its inputs have changed since, run it again with --again",
                 last.submission_id)  # fmt: skip
        name = str(last.submission_id)
        output = JobLog(None)
        output.add(client.get_job_logs(name))
        return _result(client, name, output)
    else:
        name = _start(client, config, job, _next_attempt(job.name, last))
    if config.detach:
        return StepResult("submit", name, skipped=False, summary=_status(client, name))
    return _follow(client, name)


def connect(address: str | None) -> "JobSubmissionClient":
    """Return a client of the cluster's dashboard.

    Args:
        address: URL of the dashboard; None: from the environment, see `SubmitConfig`.

    Raises:
        UserError: no dashboard answers, or it refuses the token.
    """
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(address, headers=_token_header())
    except AuthenticationError as error:
        raise UserError(
            f"The cluster at {address} refuses the token of this machine; set RAY_AUTH_TOKEN to the cluster's token, "
            "or RAY_AUTH_TOKEN_PATH to the file that has it."
        ) from error
    except (ConnectionError, RuntimeError) as error:
        raise UserError(
            f"No Ray dashboard answers at {address} ({str(error).splitlines()[0]}); start a cluster (`make cluster`), "
            "or correct --address."
        ) from error


def _token_header() -> dict[str, str]:
    """Return the header with the user's token, from the places where Ray itself looks; empty without a token.

    Ray reads the token only when it is imported and only if RAY_AUTH_MODE is set, so the client gets it here.
    """
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray/auth_token")
    if not token and path.is_file():
        token = path.read_text().strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def last_attempt(client: "JobSubmissionClient", name: str) -> "JobDetails | None":
    """Return the latest attempt of a job on the cluster; None if there is none."""
    attempts = [details for details in client.list_jobs() if _attempt(details.submission_id, name)]
    return max(attempts, key=lambda details: _attempt(details.submission_id, name), default=None)


def _attempt(submission_id: str | None, name: str) -> int:
    """Return the number of the attempt, from 1, that a submission id has; 0 for another job."""
    match = re.fullmatch(rf"{re.escape(name)}(?:-(\d+))?", submission_id or "")
    return int(match[1] or 1) if match else 0


def _next_attempt(name: str, last: "JobDetails | None") -> str:
    return name if last is None else f"{name}-{_attempt(last.submission_id, name) + 1}"


def _start(client: "JobSubmissionClient", config: SubmitConfig, job: JobRequest, name: str) -> str:
    """Upload the working directory and submit the job under the id `name`."""
    if missing := untracked_code():
        log.warning("not tracked by git, so not part of the job: %s", ", ".join(missing))
    environment = {
        "LION_GIT_COMMIT": git_commit() or "",
        # Read by the process that stops a job. Ray's default of 3 s is too short to save a checkpoint.
        "RAY_JOB_STOP_WAIT_TIME_S": str(config.stop_seconds),
        **config.env,
    }
    with tempfile.TemporaryDirectory() as folder:
        package = make_package(job.arguments, Path(folder), options=sent_options(type(job.config)))
        send = functools.partial(
            client.submit_job,
            entrypoint=shlex.join(["python", "-m", f"jobs.{job.verb}", *package.arguments]),
            submission_id=name,
            runtime_env={"working_dir": folder, "env_vars": environment},
            entrypoint_num_cpus=config.driver_cpus or None,
        )
        deadline = time.monotonic() + _PATIENCE
        while not _try_send(client, name, send, last_try=time.monotonic() > deadline):
            time.sleep(5 * _POLL)
    log.info("submitted %s; %s/#/jobs/%s", name, client.get_address(), name)
    return name


def _try_send(client: "JobSubmissionClient", name: str, send: Callable[[], str], last_try: bool) -> bool:
    """Submit the job and return whether the cluster has it. While its agents still start, it does not."""
    try:
        send()
    except RuntimeError as error:  # Ray's client raises no narrower class
        if "No available agent" in str(error) and not last_try:
            return False
        # If the attempt exists, another process submitted the same job a moment before.
        if last_attempt(client, name) is None:
            raise
    return True


def _follow(client: "JobSubmissionClient", name: str) -> StepResult:
    output = JobLog(sys.stderr)
    try:
        follow(client, name, output)
    except KeyboardInterrupt:
        raise Stopped(
            f"{name} is still running. Start the same command again to follow it, or with --stop before `--` to stop "
            "it."
        ) from None
    return _result(client, name, output)


def _result(client: "JobSubmissionClient", name: str, output: JobLog) -> StepResult:
    """Return the job's JSON line and exit code as the result of a step, as if it had run on this machine."""
    details = client.get_job_info(name)
    code = 0 if details.status == "SUCCEEDED" else details.driver_exit_code
    code = code if code in (0, 1, 2, 3) else 1  # other codes, such as those of signals, are not documented
    if details.status != "SUCCEEDED":
        log.error("%s: %s", name, _end_text(details))
    if output.result is None:
        return StepResult("submit", name, skipped=False, summary=_status(client, name), exit_code=code)
    fields = {key: output.result[key] for key in ("step", "path", "skipped")}
    return StepResult(**fields, summary=output.result, exit_code=code)


def _end_text(details: "JobDetails") -> str:
    if details.status == "STOPPED":
        return "stopped; submit it again to resume it"
    if details.driver_exit_code is not None:
        return f"failed with exit code {details.driver_exit_code}; see its log above"
    return f"failed before it started: {(details.message or 'no reason reported').strip()}"


def _status(client: "JobSubmissionClient", name: str) -> dict[str, str]:
    return {"status": str(client.get_job_status(name).value), "address": client.get_address()}


def _stop(client: "JobSubmissionClient", config: SubmitConfig, name: str, last: "JobDetails | None") -> StepResult:
    """Stop the job and, unless detached, wait for its end."""
    if last is None or last.status.is_terminal():
        reason = "was never submitted" if last is None else f"has ended ({last.status.value})"
        log.info("nothing to stop: %s %s", name, reason)
        return StepResult("submit", name, skipped=True, summary={"status": last.status.value if last else None})
    running = str(last.submission_id)
    client.stop_job(running)
    log.info("stopping %s; a training saves a checkpoint first", running)
    while not config.detach and not client.get_job_status(running).is_terminal():
        time.sleep(_POLL)
    return StepResult("submit", running, skipped=False, summary=_status(client, running))
