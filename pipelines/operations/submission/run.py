"""Submits a job unless it runs or has run, follows its log, hands on its result, or stops it."""

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
from pipelines.operations.submission.follow import Log, follow
from pipelines.operations.submission.job import Job, require_portable
from pipelines.operations.submission.package import make_package, tracked, untracked_code

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

log = logging.getLogger("lion.submit")
_POLL = 0.5  # seconds between two looks at a job's state
_PATIENCE = 120.0  # seconds that a cluster has to be ready for jobs, once its dashboard answers
_SECRET = re.compile(r"(?i)(secret|token|passw|credential|access_?key|api_?key)")


def submit(config: SubmitConfig, job: Job) -> StepResult:
    """Run the job on the cluster; see `SubmitConfig`.

    Raises:
        UserError: no cluster answers, it wants a token, or the job could not run there as it is written.
    """
    if secret := next(filter(_SECRET.search, config.env), None):
        raise UserError(
            f"env.{secret}: the variables of a job are shown on the dashboard; put it into the environment of the "
            "cluster's machines (KubeRay: a Secret behind envFrom)."
        )
    if not config.stop:
        require_portable(job, tracked())
    client = connect(config.address)
    last = last_attempt(client, job.name)
    if config.stop:
        return _stop(client, config, job.name, last)
    if last is not None and not last.status.is_terminal():
        log.info("%s runs already", last.submission_id)
        name = str(last.submission_id)
    elif last is not None and last.status == "SUCCEEDED" and not config.again:
        log.info("%s has succeeded before; --again runs it once more, should what it reads have changed since",
                 last.submission_id)  # fmt: skip
        name = str(last.submission_id)
        earlier = Log(None)
        earlier.add(client.get_job_logs(name))
        return _result(client, name, earlier)
    else:
        name = _start(client, config, job, _next(job.name, last))
    if config.detach:
        return StepResult("submit", name, skipped=False, summary=_state(client, name))
    return _follow(client, name)


def connect(address: str | None) -> "JobSubmissionClient":
    """Return a client of the cluster's dashboard.

    Raises:
        UserError: nothing answers there, or it wants another token.
    """
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(address, headers=_own_token())
    except AuthenticationError as error:
        raise UserError(
            f"The cluster at {address} does not take the token of this machine; set RAY_AUTH_TOKEN, or "
            "RAY_AUTH_TOKEN_PATH to the file that holds the cluster's."
        ) from error
    except (ConnectionError, RuntimeError) as error:
        raise UserError(
            f"No Ray dashboard answers at {address} ({str(error).splitlines()[0]}); start a cluster (`make cluster`), "
            "or correct --address."
        ) from error


def _own_token() -> dict[str, str]:
    """Return the header with this user's token, from where Ray itself looks for it; none where there is none.

    Given to Ray's client, because Ray looks only when it is imported, and only where RAY_AUTH_MODE is set.
    """
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray/auth_token")
    if not token and path.is_file():
        token = path.read_text().strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def last_attempt(client: "JobSubmissionClient", name: str) -> "JobDetails | None":
    """Return the latest attempt of a job that the cluster knows of."""
    known = [one for one in client.list_jobs() if _attempt(one.submission_id, name)]
    return max(known, key=lambda one: _attempt(one.submission_id, name), default=None)


def _attempt(submission_id: str | None, name: str) -> int:
    """Which attempt of the job that is, from 1 on; 0 for another job."""
    found = re.fullmatch(rf"{re.escape(name)}(?:-(\d+))?", submission_id or "")
    return int(found[1] or 1) if found else 0


def _next(name: str, last: "JobDetails | None") -> str:
    return name if last is None else f"{name}-{_attempt(last.submission_id, name) + 1}"


def _start(client: "JobSubmissionClient", config: SubmitConfig, job: Job, name: str) -> str:
    """Send the working directory and the job."""
    if lacking := untracked_code():
        log.warning("not tracked by git and so not part of the job: %s", ", ".join(lacking))
    environment = {
        "LION_GIT_COMMIT": git_commit() or "",
        # The process that stops a job reads it; Ray's own three seconds are too few to save anything.
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
        until = time.monotonic() + _PATIENCE
        while not _sent(client, name, send, last_try=time.monotonic() > until):
            time.sleep(5 * _POLL)
    log.info("submitted %s; %s/#/jobs/%s", name, client.get_address(), name)
    return name


def _sent(client: "JobSubmissionClient", name: str, send: Callable[[], str], last_try: bool) -> bool:
    """Whether the cluster has the job; not yet, where its agents are still starting."""
    try:
        send()
    except RuntimeError as error:  # Ray's client has no narrower class
        if "No available agent" in str(error) and not last_try:
            return False
        if last_attempt(client, name) is None:  # else somebody who sent the same one a moment before was faster
            raise
    return True


def _follow(client: "JobSubmissionClient", name: str) -> StepResult:
    shown = Log(sys.stderr)
    try:
        follow(client, name, shown)
    except KeyboardInterrupt:
        raise Stopped(
            f"{name} goes on. The same command follows it again; with --stop before the `--` it stops it."
        ) from None
    return _result(client, name, shown)


def _result(client: "JobSubmissionClient", name: str, shown: Log) -> StepResult:
    """What the job printed as its JSON line and how it ended, as if it had run here."""
    details = client.get_job_info(name)
    code = 0 if details.status == "SUCCEEDED" else details.driver_exit_code
    code = code if code in (0, 1, 2, 3) else 1
    if details.status != "SUCCEEDED":
        log.error("%s: %s", name, _ending(details))
    if shown.result is None:
        return StepResult("submit", name, skipped=False, summary=_state(client, name), exit_code=code)
    known = {key: shown.result[key] for key in ("step", "path", "skipped")}
    return StepResult(**known, summary=shown.result, exit_code=code)


def _ending(details: "JobDetails") -> str:
    if details.status == "STOPPED":
        return "stopped; submitted again, it goes on"
    if details.driver_exit_code is not None:
        return f"failed with exit code {details.driver_exit_code}; see its log above"
    return f"failed before it began: {(details.message or 'no reason given').strip()}"


def _state(client: "JobSubmissionClient", name: str) -> dict[str, str]:
    return {"status": str(client.get_job_status(name).value), "address": client.get_address()}


def _stop(client: "JobSubmissionClient", config: SubmitConfig, name: str, last: "JobDetails | None") -> StepResult:
    """Ask the job to end, and waits until it has."""
    if last is None or last.status.is_terminal():
        state = "was never submitted" if last is None else f"has ended ({last.status.value})"
        log.info("nothing to stop: %s %s", name, state)
        return StepResult("submit", name, skipped=True, summary={"status": last.status.value if last else None})
    running = str(last.submission_id)
    client.stop_job(running)
    log.info("asked %s to stop; a training saves first", running)
    while not config.detach and not client.get_job_status(running).is_terminal():
        time.sleep(_POLL)
    return StepResult("submit", running, skipped=False, summary=_state(client, running))
