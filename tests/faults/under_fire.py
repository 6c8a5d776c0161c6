"""One job under one fault, from its start to its end, and what the fault has cost."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults import outcomes
from tests.faults.drivers import Driver, seconds_to_recover
from tests.faults.outcomes import Outcome
from tests.faults.place import MODEL, Place

Strike = Callable[[Driver], str]
"""Does the harm, and says what it was."""
COMMANDS = 3
# What the losses of a training may differ by where the number of workers changed on the way: sums in another order.
ROUNDING = 1e-3


class UnderFire(ABC):
    """A job that is struck once.

    Args:
        place: where.
        name: of the fault.
        out: where results go; a folder of the fault's own by default.
        options: of the verb, over its usual ones.
    """

    verb: str
    unit: str

    def __init__(self, place: Place, name: str, out: str | None = None, **options: Any) -> None:
        self.place, self.name, self.options = place, name, options
        self.remote = out is not None and out.startswith("s3://")
        self.out = out or str(place.folder / name)
        self.chance = place.chance(name)
        self.drivers: list[Driver] = []

    @property
    def logs(self) -> Path:
        """Where the drivers' output goes."""
        return self.place.folder / "logs" / self.name

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The verb's options."""

    @abstractmethod
    def progress(self) -> int:
        """How far the job has come."""

    @abstractmethod
    def total(self) -> int:
        """How far it can come."""

    @abstractmethod
    def compare(self, folder: Path) -> dict[str, Any]:
        """The losses, as `Outcome`'s fields, with the promises that can be seen in the result."""

    def start(self) -> Driver:
        """Gives the command, to the cluster that there is now."""
        settings = {**self.settings(), "ray.address": self.place.nodes.address}
        name = f"command-{len(self.drivers) + 1}"
        self.drivers.append(self.place.drive(self.verb, settings, self.logs, name, self.progress))
        return self.drivers[-1]

    def run(self, strike: Strike, amend: Callable[[], object] = lambda: None, earliest: int = 1) -> Outcome:
        """Starts, strikes at a point that chance picks, gives the command again where it ended, and compares.

        Args:
            strike: the fault.
            amend: what an operator does before the command is given again.
            earliest: how far the job is to have come before it is struck.
        """
        point = self.chance.randint(earliest, max(earliest, self.total() // 3))
        driver = self.start()
        driver.wait_until(lambda: driver.reached >= point)
        self.before()
        struck, reached = time.monotonic(), driver.reached
        what = strike(driver)
        code, result = driver.finish()
        said = self._said(driver, code)
        amend()
        while code and len(self.drivers) < COMMANDS:
            code, result = self.start().finish()
        if code:
            raise RuntimeError(f"{self.name} did not come through:\n{self.drivers[-1].tail()}")
        path = result["path"]
        folder = self.place.download(path, self.place.folder / f"{self.name}-result") if self.remote else Path(path)
        found = self.compare(folder)
        commands = len(self.drivers)
        found["promises"]["P7"] = self._does_nothing()
        return Outcome(
            self.name, f"{what} at {self.unit} {reached} of {self.total()}",
            seconds=seconds_to_recover(struck, *self.drivers[:commands]), commands=commands, note=said, **found,
        )  # fmt: skip

    def before(self) -> None:  # noqa: B027  # optional, not abstract
        """Called right before the strike."""

    def _does_nothing(self) -> bool:
        """P7: the finished job, given once more."""
        code, result = self.start().finish()
        return code == 0 and bool(result["skipped"])

    @staticmethod
    def _said(driver: Driver, code: int) -> str:
        """What a driver that ended by itself had to say."""
        lines = driver.tail().strip().splitlines()
        return f"exit {code}: {lines[-1][:160]}" if code > 0 and lines else ""


class Precompute(UnderFire):
    """Precompute: P1."""

    verb, unit = "precompute", "shard"
    images: str | None = None

    def settings(self) -> dict[str, Any]:
        """See `Place.precompute_options`."""
        return {**self.place.precompute_options(self.name, self.out, self.images), **self.options}

    def _done(self) -> dict[str, int]:
        return self.place.listed(self.out, "precompute-*/done/*.json")

    def progress(self) -> int:
        """Shards that are done."""
        return len(self._done())

    def total(self) -> int:
        """All shards."""
        return len(self.place.listed(str(self.place.tagged.parent), "precompute-*/done/*.json"))

    def before(self) -> None:
        """Notes what is done, and when it was."""
        self._known = self._done()

    def compare(self, folder: Path) -> dict[str, Any]:
        """Rows against rows."""
        lost, twice = outcomes.lost_and_twice(outcomes.rows(folder), outcomes.rows(self.place.tagged))
        after = self._done()
        repeated = sum(after.get(name) != written for name, written in self._known.items())
        left = list(folder.rglob("*.partial"))
        whole = {"P1": not lost and not twice and not repeated and not left}
        return {"lost": lost, "twice": twice, "repeated": repeated, "difference": None, "promises": whole}


class Training(UnderFire):
    """A training of the tag encoder: P3, P8 and, where the number of workers changes, P5."""

    verb, unit = "train_tag_encoder", "step"
    elastic = False

    def settings(self) -> dict[str, Any]:
        """See `Place.training_options`."""
        return {**self.place.training_options(self.name, self.out if self.remote else None), "out": self.out,
                **self.options}  # fmt: skip

    def progress(self) -> int:
        """Steps done; in an object store, those that a checkpoint holds."""
        if self.remote:
            states = self.place.listed(self.out, "train_tag_encoder-*/checkpoints/step-*/state.json")
            return max((int(name.split("/step-")[1][:8]) for name in states), default=0)
        return max((line["step"] + 1 for line in self.lines()), default=0)

    def lines(self) -> list[dict[str, Any]]:
        """What the workers wrote of their steps."""
        return [line for folder in Path(self.out).glob(f"{self.verb}-*") for line in outcomes.traced(folder)]

    def total(self) -> int:
        """All steps."""
        return int(self.options.get("loop.steps", self.place.sizes.steps))

    def reference(self) -> Path:
        """The undisturbed training."""
        return self.place.trained_for(self.total())

    def compare(self, folder: Path) -> dict[str, Any]:
        """Steps, samples and losses against those of the undisturbed training."""
        found, expected = outcomes.losses(folder), dict(outcomes.losses(self.reference()))
        lost, twice = outcomes.lost_and_twice([step for step, _ in found], list(expected))
        difference = max(abs(loss - expected[step]) for step, loss in found)
        ordered, repeated = True, 0
        if not self.remote:
            lines = self.lines()
            ordered = outcomes.in_order(lines, outcomes.batches_of(outcomes.traced(self.reference())))
            mine = [line for line in lines if line["rank"] == 0]
            known = dict(outcomes.losses(self.reference()))
            difference = max(difference, *(abs(line["loss"] - known[line["step"] + 1]) for line in mine))
            repeated = len(mine) - len(known)
        same = difference <= (ROUNDING if self.elastic else 0.0)
        promises = {"P3": ordered and same and not lost and not twice, "P8": self._gives_back(folder)}
        if self.elastic:
            lines = self.lines()
            grown_back = max(lines, key=lambda line: line["step"])["world"] == 2
            promises["P5"] = same and grown_back and {line["world"] for line in lines} == {1, 2}
        return {"lost": lost, "twice": twice, "repeated": repeated, "difference": difference, "promises": promises}

    def _gives_back(self, folder: Path) -> bool:
        """P8: what the registry gives back is what the training left."""
        from pipelines.registry import Registry, RegistryConfig

        uri = self.options.get("registry.tracking_uri")
        found = Registry(RegistryConfig(tracking_uri=uri), self.out).lookup(f"models:/{MODEL}@candidate")
        mine, theirs = (outcomes.digests(Path(one), "*.safetensors") for one in (folder / "model", found.folder))
        return bool(mine) and mine == theirs
