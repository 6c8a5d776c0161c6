"""A job with one fault, from its start to its end, and the cost of the fault."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults import outcomes
from tests.faults.drivers import Driver, seconds_to_recover
from tests.faults.outcomes import Outcome
from tests.faults.testbed import MODEL, Testbed

Inject = Callable[[Driver], str]
"""Does the harm and returns a description of it."""
COMMANDS = 3
# Largest difference of losses where the number of workers changed: sums are then computed in another order.
ROUNDING = 1e-3


class FaultedJob(ABC):
    """A job into which one fault is injected.

    Args:
        testbed: the world and the cluster.
        name: name of the fault.
        out: folder or URI of the results; by default a folder named after the fault.
        options: options of the verb that replace the usual ones.
    """

    verb: str
    unit: str

    def __init__(self, testbed: Testbed, name: str, out: str | None = None, **options: Any) -> None:
        self.testbed, self.name, self.options = testbed, name, options
        self.remote = out is not None and out.startswith("s3://")
        self.out = out or str(testbed.folder / name)
        self.rng = testbed.rng(name)
        self.drivers: list[Driver] = []

    @property
    def logs(self) -> Path:
        """The folder of the drivers' output."""
        return self.testbed.folder / "logs" / self.name

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the options of the verb."""

    @abstractmethod
    def progress(self) -> int:
        """Return the progress of the job, a number that grows."""

    @abstractmethod
    def total(self) -> int:
        """Return the progress of the finished job."""

    @abstractmethod
    def compare(self, folder: Path) -> dict[str, Any]:
        """Return the fields of `Outcome` that come from the result: lost and doubled rows, and promises."""

    def start(self) -> Driver:
        """Run the command on the present cluster."""
        settings = {**self.settings(), "ray.address": self.testbed.nodes.address}
        name = f"command-{len(self.drivers) + 1}"
        self.drivers.append(self.testbed.drive(self.verb, settings, self.logs, name, self.progress))
        return self.drivers[-1]

    def run(self, inject: Inject, amend: Callable[[], object] = lambda: None, earliest: int = 1) -> Outcome:
        """Start the job, inject the fault at a random point, run the command again if it failed, and compare.

        Args:
            inject: the fault.
            amend: what an operator does before running the command again.
            earliest: the smallest progress at which the fault is injected.
        """
        point = self.rng.randint(earliest, max(earliest, self.total() // 3))
        driver = self.start()
        driver.wait_until(lambda: driver.reached >= point)
        self.before()
        struck, reached = time.monotonic(), driver.reached
        what = inject(driver)
        code, result = driver.finish()
        note = self._message(driver, code)
        amend()
        while code and len(self.drivers) < COMMANDS:
            code, result = self.start().finish()
        if code:
            raise RuntimeError(f"{self.name} failed {COMMANDS} times:\n{self.drivers[-1].tail()}")
        path = result["path"]
        folder = self.testbed.download(path, self.testbed.folder / f"{self.name}-result") if self.remote else Path(path)
        costs = self.compare(folder)
        commands = len(self.drivers)
        costs["promises"]["P7"] = self._is_skipped()
        return Outcome(
            self.name, f"{what} at {self.unit} {reached} of {self.total()}",
            seconds=seconds_to_recover(struck, *self.drivers[:commands]), commands=commands, note=note, **costs,
        )  # fmt: skip

    def before(self) -> None:  # noqa: B027  # optional, not abstract
        """Run right before the fault is injected."""

    def _is_skipped(self) -> bool:
        """Return whether running the command of the finished job again does nothing (P7)."""
        code, result = self.start().finish()
        return code == 0 and bool(result["skipped"])

    @staticmethod
    def _message(driver: Driver, code: int) -> str:
        """Return the last line of a driver that ended by itself with an error."""
        lines = driver.tail().strip().splitlines()
        return f"exit {code}: {lines[-1][:160]}" if code > 0 and lines else ""


class PrecomputeJob(FaultedJob):
    """A precompute job. It checks P1."""

    verb, unit = "precompute", "shard"
    images: str | None = None

    def settings(self) -> dict[str, Any]:
        """Return the options; see `Testbed.precompute_options`."""
        return {**self.testbed.precompute_options(self.name, self.out, self.images), **self.options}

    def _done(self) -> dict[str, int]:
        return self.testbed.listed(self.out, "precompute-*/done/*.json")

    def progress(self) -> int:
        """Return the number of finished shards."""
        return len(self._done())

    def total(self) -> int:
        """Return the number of all shards."""
        return len(self.testbed.listed(str(self.testbed.tagged.parent), "precompute-*/done/*.json"))

    def before(self) -> None:
        """Remember the finished shards with their times."""
        self._done_before = self._done()

    def compare(self, folder: Path) -> dict[str, Any]:
        """Compare the rows with those of the undisturbed run."""
        lost, twice = outcomes.lost_and_twice(outcomes.rows(folder), outcomes.rows(self.testbed.tagged))
        after = self._done()
        repeated = sum(after.get(name) != written for name, written in self._done_before.items())
        left = list(folder.rglob("*.partial"))
        whole = {"P1": not lost and not twice and not repeated and not left}
        return {"lost": lost, "twice": twice, "repeated": repeated, "difference": None, "promises": whole}


class TrainingJob(FaultedJob):
    """A training of the tag encoder. It checks P3, P8 and, where the number of workers changes, P5."""

    verb, unit = "train_tag_encoder", "step"
    elastic = False

    def settings(self) -> dict[str, Any]:
        """Return the options; see `Testbed.training_options`."""
        return {**self.testbed.training_options(self.name, self.out if self.remote else None), "out": self.out,
                **self.options}  # fmt: skip

    def progress(self) -> int:
        """Return the number of finished steps; in an object store those of the last checkpoint."""
        if self.remote:
            states = self.testbed.listed(self.out, "train_tag_encoder-*/checkpoints/step-*/state.json")
            return max((int(name.split("/step-")[1][:8]) for name in states), default=0)
        return max((line["step"] + 1 for line in self.lines()), default=0)

    def lines(self) -> list[dict[str, Any]]:
        """Return the trace of all workers."""
        return [line for folder in Path(self.out).glob(f"{self.verb}-*") for line in outcomes.traced(folder)]

    def total(self) -> int:
        """Return the number of all steps."""
        return int(self.options.get("loop.steps", self.testbed.sizes.steps))

    def reference(self) -> Path:
        """Return the result of the undisturbed training."""
        return self.testbed.trained_for(self.total())

    def compare(self, folder: Path) -> dict[str, Any]:
        """Compare steps, samples and losses with those of the undisturbed training."""
        losses, expected = outcomes.losses(folder), dict(outcomes.losses(self.reference()))
        lost, twice = outcomes.lost_and_twice([step for step, _ in losses], list(expected))
        difference = max(abs(loss - expected[step]) for step, loss in losses)
        ordered, repeated = True, 0
        if not self.remote:
            lines = self.lines()
            ordered = outcomes.in_order(lines, outcomes.batches_of(outcomes.traced(self.reference())))
            first = [line for line in lines if line["rank"] == 0]
            difference = max(difference, *(abs(line["loss"] - expected[line["step"] + 1]) for line in first))
            repeated = len(first) - len(expected)
        same = difference <= (ROUNDING if self.elastic else 0.0)
        promises = {"P3": ordered and same and not lost and not twice, "P8": self._is_registered(folder)}
        if self.elastic:
            lines = self.lines()
            grown_back = max(lines, key=lambda line: line["step"])["world"] == 2
            promises["P5"] = same and grown_back and {line["world"] for line in lines} == {1, 2}
        return {"lost": lost, "twice": twice, "repeated": repeated, "difference": difference, "promises": promises}

    def _is_registered(self, folder: Path) -> bool:
        """Return whether the registered model has the weights of the training's result (P8)."""
        from pipelines.registry import Registry, RegistryConfig

        uri = self.options.get("registry.tracking_uri")
        registered = Registry(RegistryConfig(tracking_uri=uri), self.out).lookup(f"models:/{MODEL}@candidate")
        own, other = (outcomes.digests(Path(path), "*.safetensors") for path in (folder / "model", registered.folder))
        return bool(own) and own == other
