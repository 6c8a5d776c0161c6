"""A job's log as it grows, over a connection that may be lost, and the verb's JSON line in it."""

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any, TextIO

from pipelines.core.errors import UserError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

log = logging.getLogger("lion.submit")
_PAUSE = 2.0  # seconds before a lost connection is tried again
_PATIENCE = 600.0  # seconds for which it is tried


class Log:
    """What a job printed, passed on piece by piece.

    Args:
        sink: where it goes; None: nowhere.
    """

    def __init__(self, sink: TextIO | None) -> None:
        self._sink = sink
        self._line = ""
        self.length = 0
        """Characters so far."""
        self.result: dict[str, Any] | None = None
        """The verb's own JSON line: the last one of that form, as Ray may have more to say after it."""

    def add(self, text: str) -> None:
        """Take the next piece, which may end inside a line; the JSON line is kept, all others are passed on."""
        self.length += len(text)
        *whole, self._line = (self._line + text).split("\n")
        for line in whole:
            if (document := _result(line)) is not None:
                self.result = document
            elif self._sink is not None:
                self._sink.write(f"{line}\n")
        if self._sink is not None:
            self._sink.flush()


def _result(line: str) -> dict[str, Any] | None:
    """What a verb prints as its last line, if this is it."""
    if not (line.startswith("{") and line.endswith("}")):
        return None
    try:
        document = json.loads(line)
    except json.JSONDecodeError:
        return None
    return document if {"step", "path", "skipped"} <= document.keys() else None


def follow(client: "JobSubmissionClient", name: str, shown: Log) -> None:
    """Pass a job's log on until the job has ended; a lost connection is taken up again where it broke.

    Raises:
        UserError: the dashboard is gone for ten minutes.
    """
    lost: float | None = None
    while True:
        before = shown.length
        try:
            asyncio.run(_tail(client, name, shown))
            if client.get_job_status(name).is_terminal():
                return
            lost = None
        except (OSError, RuntimeError) as error:  # RuntimeError is what Ray's client makes of a broken connection
            lost = lost if lost is not None and shown.length == before else time.monotonic()
            if time.monotonic() - lost > _PATIENCE:
                raise UserError(
                    f"The dashboard at {client.get_address()} is gone ({error}). The job may go on without it; the "
                    "same command follows it again."
                ) from error
            log.warning("the log of %s broke off (%s); trying again", name, error)
        time.sleep(_PAUSE)


async def _tail(client: "JobSubmissionClient", name: str, shown: Log) -> None:
    """Add what comes after the characters that are shown already; every connection begins at the log's start."""
    import aiohttp

    skip = shown.length
    try:
        async for text in client.tail_job_logs(name):
            if text[skip:]:
                shown.add(text[skip:])
            skip = max(0, skip - len(text))
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error)) from error
