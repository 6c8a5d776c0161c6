"""What is told about a training while it runs, each named by its effect."""

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.training.context import Context

log = logging.getLogger("lion.training")
Record = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        step: its number; 0 is the first.
        epoch: passes over the data, with fractions.
        loss: mean over the global batch.
        rates: learning rate by parameter group.
        gradient_norm: before clipping; None where DeepSpeed computes none, infinite where fp16 left the step out.
        loss_scale: what fp16 multiplies the loss by for the step after; None in other precisions.
        samples: samples of the global batch.
        tokens: tokens of the global batch.
        seconds: how long it took, waiting included.
        waited: seconds that this worker waited for data.
        ids: the samples of this worker, in order.
    """

    step: int
    epoch: float
    loss: float
    rates: Mapping[str, float]
    gradient_norm: float | None
    samples: int
    tokens: int
    seconds: float
    waited: float
    ids: list[str]
    loss_scale: float | None = None


class Callback:
    """Does nothing; what wants to be told overrides what it needs. Every worker has its own."""

    def start(self, step: int, steps: int, context: Context) -> None:
        """Return the loop is about to begin at `step` of `steps`."""

    def step(self, step: Step) -> None:
        """Return a step is over."""

    def record(self, record: Record) -> None:
        """Metrics are there: `kind` is train or validation, `step` counts the steps done."""

    def close(self) -> None:
        """Return the loop is over, however it ended."""


class Progress(Callback):
    """A readable line on stderr every few seconds and after each validation."""

    def __init__(self, name: str, every: float = 5.0) -> None:
        self._name, self._every = name, every
        self._steps = self._first = 0
        self._begun = self._last = time.monotonic()

    def start(self, step: int, steps: int, context: Context) -> None:
        """Says where it begins."""
        self._first, self._steps = step, steps
        self._begun = self._last = time.monotonic()
        where = f"{context.world} worker{'s' if context.world > 1 else ''} on {context.device.type}"
        log.info("%s: %s, %s", self._name, f"resumed at step {step} of {steps}" if step else f"{steps} steps", where)

    def step(self, step: Step) -> None:
        """Print a line where it is time."""
        now = time.monotonic()
        if now - self._last < self._every:
            return
        self._last = now
        done = step.step + 1
        left = (now - self._begun) / (done - self._first) * (self._steps - done)
        rates = "/".join(f"{rate:.1e}" for rate in sorted(set(step.rates.values())))
        log.info(
            "%s: step %d/%d, epoch %.2f, loss %.4f, lr %s, %.1f samples/s, waiting for data %.0f %%, %s left",
            self._name, done, self._steps, step.epoch, step.loss, rates, step.samples / step.seconds,
            100 * step.waited / step.seconds, _duration(left),
        )  # fmt: skip

    def record(self, record: Record) -> None:
        """Print validations."""
        if record["kind"] == "validation":
            rest = {name: value for name, value in record.items() if name not in ("kind", "step", "epoch")}
            shown = ", ".join(f"{name} {value:.4f}" for name, value in rest.items())
            log.info("%s: validation at step %d (epoch %.2f): %s", self._name, record["step"], record["epoch"], shown)


class Trace(Callback):
    """Each worker's sample ids and losses, a JSON line per step, in `rank-N.jsonl`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._file: Any = None
        self._world = 1

    def start(self, step: int, steps: int, context: Context) -> None:
        """Open the file; a resumed training appends, behind what a killed worker or a full disk left of a line."""
        self._world = context.world
        os.makedirs(self._folder, exist_ok=True)
        path = Path(self._folder, f"rank-{context.rank}.jsonl")
        torn = path.exists() and not _ends_a_line(path)
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 - closed in `close`
        if torn:
            self._file.write("\n")

    def step(self, step: Step) -> None:
        """Write the line."""
        line = {"step": step.step, "loss": step.loss, "ids": step.ids, "world": self._world, "pid": os.getpid()}
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


class LogToMlflow(Callback):
    """Sends records to an MLflow run, from a thread of its own: a slow or absent MLflow never stops a training.

    What it could not send is in the training's own history, from which `catch_up` sends it before the registration.

    Args:
        uri: MLflow's address.
        run_id: the run.
        patience: seconds that the end of the training waits for what is not sent yet.
    """

    def __init__(self, uri: str, run_id: str, patience: float = 10.0) -> None:
        self._uri, self._run_id, self._patience = uri, run_id, patience
        self._records: queue.Queue[Record | None] = queue.Queue()
        self._thread = threading.Thread(target=self._send_all, name="mlflow", daemon=True)
        self._closing = threading.Event()
        self._unsent = 0

    def start(self, step: int, steps: int, context: Context) -> None:
        """Start the thread."""
        self._thread.start()

    def record(self, record: Record) -> None:
        """Put the record in the queue."""
        self._unsent += 1
        self._records.put(record)

    def close(self) -> None:
        """Send what is left, for as long as patience lasts, and says where there is some left then."""
        if not self._thread.is_alive():
            return
        self._records.put(None)
        self._thread.join(self._patience)
        self._closing.set()
        if self._thread.is_alive():
            log.warning(
                "MLflow at %s lacks %d records of metrics; they are in the training's history and are sent when its "
                "model is registered", self._uri, self._unsent,
            )  # fmt: skip

    def _send_all(self) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client, pause = MlflowClient(tracking_uri=self._uri), 1.0
        record = self._records.get()
        while record is not None and not self._closing.is_set():
            try:
                client.log_batch(self._run_id, metrics=mlflow_metrics(record))
            except (MlflowException, OSError) as error:
                log.warning("MLflow at %s took no metrics (%s); trying again in %.0f s", self._uri,
                            str(error).split("\n", 1)[0][:200], pause)  # fmt: skip
                self._closing.wait(pause)
                pause = min(pause * 2, 60.0)
                continue
            pause = 1.0
            self._unsent -= 1
            record = self._records.get()


def catch_up(client: Any, run_id: str, history: Sequence[Mapping[str, Any]]) -> int:
    """Send an MLflow run the records that it lacks, each once, and return how many they were.

    Args:
        client: an `mlflow.MlflowClient`.
        run_id: the run.
        history: all records of the training.
    """
    kinds = {record["kind"] for record in history}
    known = {(kind, point.step) for kind in kinds for point in client.get_metric_history(run_id, f"{kind}/loss")}
    missing = [record for record in history if (record["kind"], record["step"]) not in known]
    for record in missing:
        client.log_batch(run_id, metrics=mlflow_metrics(record))
    return len(missing)


def mlflow_metrics(record: Mapping[str, Any]) -> list[Any]:
    """Return a record as MLflow's metrics, named `train/loss`, `validation/loss` and so on."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    values = {name: value for name, value in record.items() if name not in ("kind", "step")}
    return [Metric(f"{record['kind']}/{name}", float(value), now, record["step"]) for name, value in values.items()]


class ReportToRay(Callback):
    """Reports validations to Ray Train: its pages, and Tune's schedulers, see them.

    Args:
        folder: of the training; whoever stops it early finds there what it left.
        stop_mark: the URI that whoever wants it to stop early writes to.
    """

    def __init__(self, folder: str, stop_mark: str) -> None:
        self._own, self._steps = {"folder": folder, "stop_mark": stop_mark}, 1

    def start(self, step: int, steps: int, context: Context) -> None:
        """Note how long the training is."""
        self._steps = steps

    def record(self, record: Record) -> None:
        """Return every worker reports, as Ray Train asks."""
        if record["kind"] == "validation":
            import ray.train

            values = {name: value for name, value in record.items() if name != "kind"}
            progress = {"progress": 100 * record["step"] / self._steps}
            ray.train.report({**values, "validation_loss": record["loss"], **progress, **self._own})


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
