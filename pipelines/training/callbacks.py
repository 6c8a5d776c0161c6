"""Callbacks of the training loop: progress lines, traces, MLflow, Ray Train, and those that users add.

To add a callback, write a subclass of `Callback` in a module that the workers can import, and either register it with
`register_callback("ema", Ema)` before the step's function is called, or name it in the configuration by its path:
`loop.callbacks: [my_package.ema:Ema]`. Its `setup` receives the model and the engine.
"""

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from pipelines.training import extensions
from pipelines.training.context import Context

if TYPE_CHECKING:
    from pipelines.training.checkpoint import Checkpoints
    from pipelines.training.engine import Engine
    from pipelines.training.task import Task

log = logging.getLogger("lion.training")
Record = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A finished optimizer step.

    Attributes:
        step: its number, from 0.
        epoch: passes over the data so far, as a fraction.
        loss: mean over the global batch.
        rates: learning rate by parameter group.
        gradient_norm: global norm before clipping; None where DeepSpeed computes none, infinite where fp16 skipped the
            update.
        samples: number of samples of the global batch.
        tokens: number of tokens of the global batch.
        seconds: duration, with the time that this worker waited for data.
        waited: seconds that this worker waited for data.
        ids: ids of this worker's samples, in order.
        loss_scale: fp16's factor of the loss for the next step; None in other precisions.
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


@dataclass(frozen=True)
class TrainingView:
    """The parts of a training that a callback can use.

    Attributes:
        task: data, loss, metrics and settings.
        model: the model that is trained. At ZeRO stage 3 its parameters are sharded; use `engine.weights()` there.
        engine: the optimizer and DeepSpeed; `engine.trainable` has the trained parameters by name.
        context: rank, device and number of workers.
        checkpoints: `checkpoints.path(step)` is the folder for files that belong to a checkpoint.
    """

    task: "Task"
    model: nn.Module
    engine: "Engine"
    context: Context
    checkpoints: "Checkpoints"


class Callback:
    """Base class: every hook is a no-op. Override the hooks you need. Every worker has separate callback objects.

    Random numbers that a hook draws do not change the training, because each step sets the seed anew. An error in a
    hook ends the training.
    """

    def setup(self, view: TrainingView) -> None:
        """Store the model and the engine; called once, before `start`. A resumed training has loaded its weights."""

    def start(self, step: int, steps: int, context: Context) -> None:
        """Prepare for the steps from `step` (above 0 in a resumed training) to `steps`."""

    def step(self, step: Step) -> None:
        """Handle a finished step; the weights are updated."""

    def record(self, record: Record) -> None:
        """Handle a record of metrics: its `kind` is train or validation, its `step` the number of finished steps."""

    def checkpoint(self, step: int) -> None:
        """Save the state of this callback for the checkpoint after `step` steps; every worker calls it."""

    def close(self) -> None:
        """Release what the callback holds; called at the end of the loop, also after an error."""


CallbackFactory = Callable[[], Callback]
"""Makes one callback for each worker; a class without arguments is one."""
CALLBACKS: dict[str, CallbackFactory] = {}
"""The registered callbacks by name, for `loop.callbacks`."""


def register_callback(name: str, factory: CallbackFactory) -> None:
    """Add a callback under a name, for `loop.callbacks`.

    Call it before the step's function, in the same process: the factory is pickled to the workers.

    Raises:
        ValueError: another callback has the name.
    """
    extensions.register(CALLBACKS, "callback", name, factory)


def callback_factory(name: str) -> CallbackFactory:
    """Return the factory of a registered callback, or import one that is named as `module:attribute`.

    Raises:
        UserError: no callback is registered by that name, or the import fails.
    """
    cure = "register it with register_callback, or give its path as package.module:Class"
    return extensions.find(CALLBACKS, name, "loop.callbacks", f"loop.callbacks has {name!r}", cure)


class Progress(Callback):
    """Progress lines in the log: one every few seconds, and one after each validation.

    Args:
        name: the training's name, which starts each line.
        every: seconds between two lines.
    """

    def __init__(self, name: str, every: float = 5.0) -> None:
        self._name, self._every = name, every
        self._steps = self._first = 0
        self._begun = self._last = time.monotonic()

    def start(self, step: int, steps: int, context: Context) -> None:
        """Log the first step, the number of steps and the workers."""
        self._first, self._steps = step, steps
        self._begun = self._last = time.monotonic()
        where = f"{context.world} worker{'s' if context.world > 1 else ''} on {context.device.type}"
        log.info("%s: %s, %s", self._name, f"resumed at step {step} of {steps}" if step else f"{steps} steps", where)

    def step(self, step: Step) -> None:
        """Log a line if the last one is old enough."""
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
        """Log a validation."""
        if record["kind"] == "validation":
            metrics = {name: value for name, value in record.items() if name not in ("kind", "step", "epoch")}
            text = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            log.info("%s: validation at step %d (epoch %.2f): %s", self._name, record["step"], record["epoch"], text)


class Trace(Callback):
    """A JSON line for each step with the loss and the sample ids of this worker, in `rank-N.jsonl`.

    Args:
        folder: the folder of the files, on local disk.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._file: Any = None
        self._world = 1

    def start(self, step: int, steps: int, context: Context) -> None:
        """Open the file; a resumed training appends to it."""
        self._world = context.world
        os.makedirs(self._folder, exist_ok=True)
        path = Path(self._folder, f"rank-{context.rank}.jsonl")
        # A killed worker or a full disk can leave half a line: the next line must not continue it.
        torn = path.exists() and not _ends_with_newline(path)
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 - closed in `close`
        if torn:
            self._file.write("\n")

    def step(self, step: Step) -> None:
        """Write the step's line."""
        line = {"step": step.step, "loss": step.loss, "ids": step.ids, "world": self._world, "pid": os.getpid()}
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


class LogToMlflow(Callback):
    """Records sent to an MLflow run from a separate thread, so that a slow or absent MLflow never delays a training.

    Records that could not be sent stay in the training's history; `catch_up` sends them before the registration.

    Args:
        uri: MLflow's address.
        run_id: id of the run.
        patience: seconds that `close` waits for records that are not sent yet.
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
        """Wait for the records that are not sent yet, at most `patience` seconds; warn if some are left."""
        if not self._thread.is_alive():
            return
        self._records.put(None)
        self._thread.join(self._patience)
        self._closing.set()
        if self._thread.is_alive():
            log.warning(
                "MLflow at %s lacks %d records of metrics; they are in the training's history and are sent when the "
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
                log.warning("MLflow at %s did not accept metrics (%s); next try in %.0f s", self._uri,
                            str(error).split("\n", 1)[0][:200], pause)  # fmt: skip
                self._closing.wait(pause)
                pause = min(pause * 2, 60.0)
                continue
            pause = 1.0
            self._unsent -= 1
            record = self._records.get()


def catch_up(client: Any, run_id: str, history: Sequence[Mapping[str, Any]]) -> int:
    """Send an MLflow run the records that it lacks, each once, and return their number.

    Args:
        client: an `mlflow.MlflowClient`.
        run_id: id of the run.
        history: all records of the training.
    """
    kinds = {record["kind"] for record in history}
    logged = {(kind, point.step) for kind in kinds for point in client.get_metric_history(run_id, f"{kind}/loss")}
    missing = [record for record in history if (record["kind"], record["step"]) not in logged]
    for record in missing:
        client.log_batch(run_id, metrics=mlflow_metrics(record))
    return len(missing)


def mlflow_metrics(record: Mapping[str, Any]) -> list[Any]:
    """Return a record as MLflow metrics, named `train/loss`, `validation/loss` and so on."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    values = {name: value for name, value in record.items() if name not in ("kind", "step")}
    return [Metric(f"{record['kind']}/{name}", float(value), now, record["step"]) for name, value in values.items()]


class ReportToRay(Callback):
    """Validations reported to Ray Train, for its dashboard and for Tune's schedulers.

    Args:
        folder: the step's folder, in which Tune finds the result of a trial that it stopped early.
        stop_mark: URI of the file that stops the training early when it exists.
    """

    def __init__(self, folder: str, stop_mark: str) -> None:
        self._locations, self._steps = {"folder": folder, "stop_mark": stop_mark}, 1

    def start(self, step: int, steps: int, context: Context) -> None:
        """Store the number of steps, for the progress in percent."""
        self._steps = steps

    def record(self, record: Record) -> None:
        """Report a validation. Ray Train needs the report of every worker."""
        if record["kind"] == "validation":
            import ray.train

            values = {name: value for name, value in record.items() if name != "kind"}
            progress = {"progress": 100 * record["step"] / self._steps}
            ray.train.report({**values, "validation_loss": record["loss"], **progress, **self._locations})


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
