"""Findings: one result per check of the doctor."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal

from pipelines.core.errors import UserError

State = Literal["ok", "warning", "problem"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        about: subject of the check, such as `disks`.
        state: ok; warning: the job runs, but not as well as it could; problem: the job would hang or fail.
        message: what was measured or is wrong and, unless the state is ok, what to change.
    """

    about: str
    state: State
    message: str


def run_check(about: str, check: Callable[[], str]) -> Finding:
    """Run a check that returns a message or raises UserError; an error becomes a problem."""
    try:
        return Finding(about, "ok", check())
    except UserError as error:
        return Finding(about, "problem", str(error))


def problems_or_ok(about: str, problems: list[str], message: str) -> Iterator[Finding]:
    """Yield one finding per problem or, without problems, one that is ok and has `message`."""
    if not problems:
        yield Finding(about, "ok", message)
    for problem in problems:
        yield Finding(about, "problem", problem)
