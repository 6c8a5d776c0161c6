"""What the doctor says: one finding per thing that was looked at."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal

from pipelines.core.errors import UserError

State = Literal["ok", "warning", "problem"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: what it was.
        state: ok; warning: it works, but not as well as it could; problem: the job would hang or fail.
        said: what was found and, unless it is ok, what to change.
    """

    about: str
    state: State
    said: str


def refused(about: str, check: Callable[[], str]) -> Finding:
    """Return the finding of a check that returns what it found, or refuses in a sentence."""
    try:
        return Finding(about, "ok", check())
    except UserError as error:
        return Finding(about, "problem", str(error))


def ok_unless(about: str, problems: list[str], fine: str) -> Iterator[Finding]:
    """Return a problem each, or that all is fine."""
    if not problems:
        yield Finding(about, "ok", fine)
    for problem in problems:
        yield Finding(about, "problem", problem)
