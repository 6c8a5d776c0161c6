"""Figures: two variants measured alternately, several times in one run, and their ratio."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

Clock = Literal["wall time", "CPU time", "memory", "count"]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A comparison of two variants.

    A ratio above 1 means that this project is better: for rates it is ours / other, for costs (seconds, bytes) it is
    other / ours.

    Attributes:
        name: name within the benchmark; its floor is `BENCHMARK.NAME` in floors.yaml.
        what: description of this project's variant.
        against: description of the other variant.
        ours: this project's measurements, one per round.
        other: the other variant's measurements, one per round.
        unit: unit of both.
        clock: kind of measurement. CPU time is used if other processes would disturb wall time.
        rate: whether a higher measurement is better.
        goal: the target ratio.
        note: an explanation for the reader of the table.
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
            raise ValueError(
                f"{self.name} needs as many measurements of one variant as of the other, all above 0: {self.ours} and "
                f"{self.other}."
            )

    @property
    def ratios(self) -> list[float]:
        """The ratio of each round."""
        pairs = zip(self.ours, self.other, strict=True)
        return [ours / other if self.rate else other / ours for ours, other in pairs]

    @property
    def ratio(self) -> float:
        """The median ratio of the rounds."""
        return statistics.median(self.ratios)

    @property
    def best(self) -> float:
        """The ratio of the best rounds, which other processes on the machine disturbed least."""
        if self.rate:
            return max(self.ours) / max(self.other)
        return min(self.other) / min(self.ours)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields and the ratios for JSON."""
        return {**dataclasses.asdict(self), "ratios": self.ratios, "ratio": self.ratio, "best": self.best}


@dataclasses.dataclass(frozen=True)
class NotMeasured:
    """A figure that this machine cannot measure, and the reason."""

    name: str
    why: str


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a benchmark's run.

    Attributes:
        work: an empty folder for its files, removed afterwards.
        quick: whether to run fewer and smaller rounds.
    """

    work: Path
    quick: bool = False

    def choose(self, whole: int, quick: int) -> int:
        """Return `quick` in a quick run, else `whole`."""
        return quick if self.quick else whole


def in_turns(rounds: int, contenders: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measure each contender once per round, in reverse order in every second round; return the measurements by name.

    So a change of the machine's load affects all contenders equally.
    """
    measurements: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in names:
            measurements[name].append(contenders[name]())
    return measurements


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of this process in seconds, over all threads."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def wall_seconds(work: Callable[[], object]) -> float:
    """Return the wall time in seconds, until the GPU has finished all its work."""
    import torch

    begun = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def seconds(work: Callable[[], object]) -> float:
    """Return CPU time on a machine without GPU, else wall time, in seconds."""
    import torch

    return wall_seconds(work) if torch.cuda.is_available() else cpu_seconds(work)


def clock() -> Clock:
    """Return the kind of time that `seconds` measures."""
    import torch

    return "wall time" if torch.cuda.is_available() else "CPU time"
