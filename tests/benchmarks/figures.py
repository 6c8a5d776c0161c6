"""What a benchmark gives: two things measured in turn, several times in one run, and the ratio of the two."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

Clock = Literal["wall time", "CPU time", "memory", "count"]


@dataclasses.dataclass(frozen=True)
class Figure:
    """Two things measured in turn.

    Ratios are taken so that above 1 this project is the better one: of rates ours over the other's, of costs (seconds,
    bytes) the other's over ours.

    Attributes:
        name: of the figure within its benchmark; `BENCHMARK.NAME` finds its floor in floors.yaml.
        what: what is measured.
        against: what it is held against.
        ours: the measurement of each round.
        other: the other's, round by round.
        unit: of both.
        clock: what was read. CPU time where neighbors on the machine would spoil wall time.
        rate: whether more is better.
        goal: the ratio that is aimed at.
        note: what a reader must know to read it.
    """

    name: str
    what: str
    against: str
    ours: Sequence[float]
    other: Sequence[float]
    unit: str
    clock: Clock
    rate: bool = False
    goal: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if len(self.ours) != len(self.other) or not self.ours or min(*self.ours, *self.other) <= 0:
            raise ValueError(f"{self.name} needs as many measurements above 0 of both: {self.ours} and {self.other}.")

    @property
    def ratios(self) -> list[float]:
        """The ratio of each round."""
        pairs = zip(self.ours, self.other, strict=True)
        return [ours / other if self.rate else other / ours for ours, other in pairs]

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.ratios)

    @property
    def best(self) -> float:
        """Each one's best round against the other's: what is left when neighbors disturbed some rounds."""
        if self.rate:
            return max(self.ours) / max(self.other)
        return min(self.other) / min(self.ours)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, the ratios included."""
        return {**dataclasses.asdict(self), "ratios": self.ratios, "ratio": self.ratio, "best": self.best}


@dataclasses.dataclass(frozen=True)
class NotMeasured:
    """A figure that this machine cannot give, and why."""

    name: str
    why: str


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a benchmark is given.

    Attributes:
        work: an empty folder of its own, removed afterwards.
        quick: fewer and smaller rounds.
    """

    work: Path
    quick: bool = False

    def choose(self, whole: int, quick: int) -> int:
        """A number that depends on how much time there is."""
        return quick if self.quick else whole


def in_turns(rounds: int, contenders: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Each contender's measurements: one after the other in every round, every second round backwards.

    Whatever changes on the machine meets all of them alike.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in names:
            found[name].append(contenders[name]())
    return found


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of this process, all threads together."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def wall_seconds(work: Callable[[], object]) -> float:
    """Wall time, to the end of what a GPU was given."""
    import torch

    begun = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def seconds(work: Callable[[], object]) -> float:
    """CPU time on a CPU, wall time where there is a GPU."""
    import torch

    return wall_seconds(work) if torch.cuda.is_available() else cpu_seconds(work)


def clock() -> Clock:
    """What `seconds` reads."""
    import torch

    return "wall time" if torch.cuda.is_available() else "CPU time"
