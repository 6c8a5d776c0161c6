"""The bookkeeping of one training: plan, history, best validation, checkpoints and callbacks."""

import math
from collections.abc import Iterable, Mapping

import torch

from pipelines.core.errors import Stopped, UserError
from pipelines.training.callbacks import Callback, Record, Step, TrainingView
from pipelines.training.checkpoint import Checkpoints, State, apply_weights
from pipelines.training.config import LoopConfig, OptimizerConfig
from pipelines.training.context import Context
from pipelines.training.data import StepBatches
from pipelines.training.engine import Engine
from pipelines.training.order import SampleOrder
from pipelines.training.plan import plan_steps
from pipelines.training.task import Task


class TrainingRun:
    """One training in one worker, from its last checkpoint (or its start weights) on.

    Args:
        task: model, data, loss and metrics.
        loop: the configuration of the loop.
        context: rank, device and number of workers.
        checkpoints: where the training resumes from and saves to.
        identity: hash of the training step.
        callbacks: what is called for each step, record and checkpoint.

    Attributes:
        state: the state of the last checkpoint; None before the first.
        start: the first step that is not done yet.
        data: the samples.
        order: the order of the training samples.
        plan: the steps and validations.
        history: the records of metrics so far.

    Raises:
        UserError: the checkpoints are those of another training, or the data is empty.
    """

    def __init__(
        self,
        task: Task,
        loop: LoopConfig,
        context: Context,
        checkpoints: Checkpoints,
        identity: str,
        callbacks: Iterable[Callback] = (),
    ) -> None:
        self.task, self.loop, self.context = task, loop, context
        self.checkpoints, self.identity, self.callbacks = checkpoints, identity, list(callbacks)
        self.history: list[Record] = []
        self._best: tuple[float, int] | None = None  # loss and step of the best validation
        self._interval: list[Step] = []  # steps since the last record
        self.state = self._resume()
        self.start = 0 if self.state is None else self.state.step
        self.data = task.data()
        self.order = SampleOrder(self.data.pools, self.data.ratios, loop.batch_size, loop.seed)
        self.plan = plan_steps(loop, self.order, context.world)

    def _resume(self) -> State | None:
        """Load the state of the last checkpoint with its history and best validation."""
        state = self.checkpoints.latest()
        if state is not None:
            if state.identity != self.identity or dict(state.base) != dict(self.task.base):
                raise UserError(f"{self.checkpoints.folder} has checkpoints of another training; use another --out.")
            self.history = [dict(record) for record in state.history]
            if state.best_loss is not None and state.best_step is not None:
                self._best = (state.best_loss, state.best_step)
        return state

    @property
    def is_complete(self) -> bool:
        """Whether the last checkpoint is the one after the last step, with its validation."""
        return self.start >= self.plan.steps and (self.has_validated(self.start) or not self.data.validation)

    def has_validated(self, step: int) -> bool:
        """Return whether the history has the validation after `step` steps."""
        return any(record["kind"] == "validation" and record["step"] == step for record in self.history)

    def epoch(self, done: int) -> float:
        """Return the passes over the training samples after `done` steps."""
        return min(done * self.order.batch_size, self.plan.samples) / self.order.samples_per_epoch

    def build_engine(self, optimizer: OptimizerConfig) -> Engine:
        """Return the model with its optimizer, with the weights and moments of the last checkpoint.

        Raises:
            UserError: the optimizer's settings name unknown parameter groups, or the checkpoint does not fit.
        """
        torch.manual_seed(self.loop.seed)  # new parts of the model start with the same weights on every worker
        model = self.task.build()
        model.train()
        weights = None
        if self.state is not None:
            weights = self.checkpoints.weights(self.start)
            # Into the module before it is sharded: with the masters alone, the first forward pass uses old weights.
            apply_weights(model, weights, self.checkpoints.path(self.start), round_off=True)
        try:
            engine = Engine(
                model, self.task.group_of, self.task.groups, self.loop, optimizer, self.context, self.plan.micro_batches
            )
        except ValueError as error:
            raise UserError(str(error)) from error
        if self.state is not None and weights is not None:
            updates = self.start if self.state.updates is None else self.state.updates
            engine.restore(weights, self.checkpoints.moments(self.start), updates, self.state.loss_scale)
        return engine

    def start_callbacks(self, engine: Engine) -> None:
        """Show the model and the engine to the callbacks and start them."""
        view = TrainingView(self.task, engine.module.module, engine, self.context, self.checkpoints)
        for callback in self.callbacks:
            callback.setup(view)
            callback.start(self.start, self.plan.steps, self.context)

    def log_step(
        self,
        share: StepBatches,
        engine: Engine,
        loss: float,
        rates: Mapping[str, float],
        tokens: int,
        seconds: float,
    ) -> None:
        """Pass a finished step to the callbacks; every `loop.log_every` steps, add a record.

        Args:
            share: this worker's samples of the step.
            engine: has the gradient's norm and the loss scale.
            loss: mean over the global batch.
            rates: learning rate by parameter group.
            tokens: tokens of the global batch.
            seconds: duration of the step, with the time that the worker waited for data.
        """
        done = share.step + 1
        step = Step(
            step=share.step,
            epoch=self.epoch(done),
            loss=loss,
            rates=rates,
            gradient_norm=engine.gradient_norm,
            loss_scale=None if engine.loss_scale is None else engine.loss_scale["cur_scale"],
            samples=min(self.order.batch_size, self.plan.samples - share.step * self.order.batch_size),
            tokens=tokens,
            seconds=seconds,
            waited=share.waited,
            ids=share.ids,
        )
        for callback in self.callbacks:
            callback.step(step)
        self._interval.append(step)
        if done % self.loop.log_every == 0 or done in self.plan.validations:
            self._add(self._train_record(step))
            self._interval = []

    def _train_record(self, step: Step) -> Record:
        """Return the metrics of the steps since the last record: means, sums per second, and the last step's rates."""
        seconds = max(sum(entry.seconds for entry in self._interval), 1e-9)
        record: Record = {
            "kind": "train",
            "step": step.step + 1,
            "epoch": round(step.epoch, 4),
            "loss": sum(entry.loss for entry in self._interval) / len(self._interval),
            **{f"learning_rate/{group}": rate for group, rate in step.rates.items()},
            "samples_per_second": sum(entry.samples for entry in self._interval) / seconds,
            "tokens_per_second": sum(entry.tokens for entry in self._interval) / seconds,
            "data_wait": sum(entry.waited for entry in self._interval) / seconds,
            "workers": self.context.world,
        }
        if step.loss_scale is not None:
            record["loss_scale"] = step.loss_scale
        if step.gradient_norm is not None and math.isfinite(step.gradient_norm):  # infinite after an fp16 overflow
            record["gradient_norm"] = step.gradient_norm
        if self.context.device.type == "cuda":
            record["gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return record

    def record_validation(self, done: int, loss: float, metrics: Mapping[str, float]) -> None:
        """Add the record of the validation after `done` steps, and remember the best one."""
        if math.isfinite(loss) and (self._best is None or loss < self._best[0]) and done > 0:
            self._best = (loss, done)
        self._add(
            {"kind": "validation", "step": done, "epoch": round(self.epoch(done), 4), "loss": loss, **metrics}
        )  # fmt: skip

    def _add(self, record: Record) -> None:
        self.history.append(record)
        for callback in self.callbacks:
            callback.record(record)

    def save(self, engine: Engine, done: int) -> None:
        """Collect the checkpoint after `done` steps from all workers; the main one writes it in the background."""
        loss, step = self._best or (None, None)
        self.state = State(
            done, min(done * self.loop.batch_size, self.plan.samples), self.loop.seed, self.identity,
            dict(self.task.base), loss, step, engine.updates, engine.loss_scale, list(self.history),
            self.context.device_name,
        )  # fmt: skip
        weights, moments = engine.weights(), engine.moments()
        # Before `state.json`, which makes a checkpoint count: then it always has the callbacks' files, too.
        for callback in self.callbacks:
            callback.checkpoint(done)
        if self.context.is_main:
            self.checkpoints.write(self.state, weights, moments)

    def stopped(self, done: int) -> Stopped:
        """Return the error of a requested stop, once all workers have arrived and the checkpoint is written."""
        self.checkpoints.wait()
        self.context.barrier()
        when = f"after step {done} of {self.plan.steps}, which is saved in {self.checkpoints.folder}"
        return Stopped(
            f"Stopped by a request {when if done else 'before the first step'}; run the same command again to resume."
        )
