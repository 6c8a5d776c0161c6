"""Following a job's log over a connection that may break, and reading the verb's JSON line from it."""

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any, TextIO

from pipelines.core.errors import UserError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

log = logging.getLogger("lion.submit")
_PAUSE = 2.0  # seconds before a lost connection is retried
_PATIENCE = 600.0  # seconds of retries without progress before the command gives up


class JobLog:
    """The output of a job, forwarded line by line.

    Args:
        sink: stream for the lines; None discards them.
    """

    def __init__(self, sink: TextIO | None) -> None:
        self._sink = sink
        self._line = ""
        self.length = 0
        """Number of characters received."""
        self.result: dict[str, Any] | None = None
        """The verb's JSON line: the last line of that form. Ray may print other lines after it."""

    def add(self, text: str) -> None:
        """Add the next part of the output, which may end inside a line; forward complete lines but the JSON line."""
        self.length += len(text)
        *complete, self._line = (self._line + text).split("\n")
        for line in complete:
            if (document := _parse_result(line)) is not None:
                self.result = document
            elif self._sink is not None:
                self._sink.write(f"{line}\n")
        if self._sink is not None:
            self._sink.flush()


def _parse_result(line: str) -> dict[str, Any] | None:
    """Return the content of a verb's JSON line; None for any other line."""
    if not (line.startswith("{") and line.endswith("}")):
        return None
    try:
        document = json.loads(line)
    except json.JSONDecodeError:
        return None
    return document if {"step", "path", "skipped"} <= document.keys() else None


def follow(client: "JobSubmissionClient", name: str, output: JobLog) -> None:
    """Forward a job's log until the job ends. After a lost connection, continue where it broke.

    Args:
        client: client of the cluster's dashboard.
        name: submission id of the job.
        output: receives the log.

    Raises:
        UserError: the dashboard did not answer for ten minutes.
    """
    lost: float | None = None  # time of the first failure without progress since
    while True:
        length = output.length
        try:
            asyncio.run(_tail(client, name, output))
            if client.get_job_status(name).is_terminal():
                return
            lost = None
        except (OSError, RuntimeError) as error:  # Ray's client raises RuntimeError for a broken connection
            lost = lost if lost is not None and output.length == length else time.monotonic()
            if time.monotonic() - lost > _PATIENCE:
                raise UserError(
                    f"The dashboard at {client.get_address()} does not answer ({error}). The job may still run; start "
                    "the same command again to follow it."
                ) from error
            log.warning("lost the connection to the log of %s (%s); retrying in %g s", name, error, _PAUSE)
        time.sleep(_PAUSE)


async def _tail(client: "JobSubmissionClient", name: str, output: JobLog) -> None:
    """Add new characters of the log. Each connection sends the log from its start, so skip those already received."""
    import aiohttp

    skip = output.length
    try:
        async for text in client.tail_job_logs(name):
            if text[skip:]:
                output.add(text[skip:])
            skip = max(0, skip - len(text))
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error)) from error
