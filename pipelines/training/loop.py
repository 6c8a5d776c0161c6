"""The one loop of every training. It does not know Ray: a launcher gives it a task and a place among the workers."""

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pipelines.core.errors import Stopped, UserError
from pipelines.training.callbacks import Callback, Record, Step
from pipelines.training.checkpoint import Checkpoints, State, apply_weights
from pipelines.training.config import LoopConfig, OptimizerConfig
from pipelines.training.context import Context
from pipelines.training.data import Batch, Loader, StepBatches, TrainingData, validation_batches
from pipelines.training.engine import Engine
from pipelines.training.interrupts import Interrupts
from pipelines.training.order import SampleOrder
from pipelines.training.task import Task

log = logging.getLogger("lion.training")


class Diverged(UserError):
    """The loss or the gradient is not a number any more. The checkpoints before it stay."""


@dataclass(frozen=True)
class Plan:
    """How many steps a training has and when it validates.

    Attributes:
        steps: all of them.
        samples: samples of all of them; the last batch may be smaller than the others.
        validations: the steps after which it validates, as counts of steps done.
        micro_batches: pieces of each worker's share of a batch.
    """

    steps: int
    samples: int
    validations: frozenset[int]
    micro_batches: int


def make_plan(loop: LoopConfig, order: SampleOrder, world: int) -> Plan:
    """Return the plan that a configuration means for these samples and this number of workers."""
    epoch = order.samples_per_epoch
    if loop.steps is not None:
        steps, samples = loop.steps, loop.steps * loop.batch_size
    else:
        steps, samples = order.total_steps(loop.epochs), round(epoch * loop.epochs)
    if steps < 1:
        raise UserError(f"{loop.epochs:g} epochs of {epoch} samples are no step at all; raise loop.epochs.")
    if loop.validate_every:
        validations = range(loop.validate_every, steps, loop.validate_every)
    else:
        validations = range(0)
        ends = {-(-epoch * number // loop.batch_size) for number in range(1, samples // epoch + 1)}
        validations = sorted(end for end in ends if end < steps)  # type: ignore[assignment]
    share = math.ceil(loop.batch_size / world)
    micro_batches = math.ceil(share / (loop.micro_batch_size or share))
    return Plan(steps, samples, frozenset([*validations, steps]), micro_batches)


class Training:
    """One run of the loop, from its last checkpoint (or the start) to its end.

    Args:
        task: what is trained.
        loop: how.
        optimizer: with which settings.
        context: this worker's place.
        checkpoints: where it goes on from, and saves to.
        identity: the training step's hash.
        callbacks: what is told about it.
        interrupts: what may ask it to save or to end.
    """

    def __init__(
        self,
        task: Task,
        loop: LoopConfig,
        optimizer: OptimizerConfig,
        context: Context,
        checkpoints: Checkpoints,
        identity: str,
        callbacks: Iterable[Callback] = (),
        interrupts: Interrupts | None = None,
    ) -> None:
        self.task, self.loop, self.optimizer, self.context = task, loop, optimizer, context
        self.checkpoints, self.identity, self.callbacks = checkpoints, identity, list(callbacks)
        self.interrupts = interrupts or Interrupts()
        self.history: list[Record] = []
        self.best: tuple[float, int] | None = None
        self._interval: list[Step] = []  # steps since the last record

    def run(self) -> State:
        """Train to the end and return the state of the last checkpoint.

        Raises:
            UserError: the data is empty, a sample cannot be read, the loss is not finite, or nothing can be saved.
            Stopped: it was asked to end; it has saved first.
        """
        state = self._begun()
        data = self.task.data()
        order = SampleOrder(data.pools, data.ratios, self.loop.batch_size, self.loop.seed)
        plan = make_plan(self.loop, order, self.context.world)
        if state is not None and state.step >= plan.steps and (self._validated(state.step) or not data.validation):
            return state
        engine = self._engine(plan, state)
        start = 0 if state is None else state.step
        for callback in self.callbacks:
            callback.start(start, plan.steps, self.context)
        if start in {0, *plan.validations} and not self._validated(start):
            if not self._validate(engine, data, start, plan, order):
                raise self._stopped(start, plan)
            state = self._save(engine, start, plan) if start else None
        loader = Loader(
            data, order, self.context, plan.micro_batches, plan.samples, self.loop.loader_threads, self.loop.prefetch
        )
        try:
            for share in loader.steps(start, plan.steps):
                stop, save = self._step(engine, share, plan, order)
                done = share.step + 1
                if done in plan.validations and not stop:
                    # Interrupted, it leaves no record, and the resumed training does it first.
                    stop = not self._validate(engine, data, done, plan, order)
                if stop or save or done in plan.validations or done % self.loop.checkpoint_every == 0:
                    state = self._save(engine, done, plan)
                if stop:
                    raise self._stopped(done, plan)
        finally:
            self.checkpoints.wait()  # a step that fails must not cost the checkpoint before it
        self.context.barrier()  # nobody leaves before the last checkpoint is there
        assert state is not None  # the last step is among the validations
        return state

    def _validated(self, step: int) -> bool:
        return any(record["kind"] == "validation" and record["step"] == step for record in self.history)

    def _stopped(self, done: int, plan: Plan) -> Stopped:
        """What is said at the end that was asked for, once everybody is here and the checkpoint is written."""
        self.checkpoints.wait()
        self.context.barrier()
        place = f"after step {done} of {plan.steps}, which is saved in {self.checkpoints.folder}"
        return Stopped(
            f"Stopped from outside {place if done else 'before the first step'}; run the same command again to go on."
        )

    def _begun(self) -> State | None:
        """Return the last checkpoint's state; history and best go on from it."""
        state = self.checkpoints.latest()
        if state is not None:
            if state.identity != self.identity or dict(state.base) != dict(self.task.base):
                raise UserError(f"{self.checkpoints.folder} holds checkpoints of another training; use another --out.")
            self.history = [dict(record) for record in state.history]
            if state.best_loss is not None and state.best_step is not None:
                self.best = (state.best_loss, state.best_step)
        return state

    def _engine(self, plan: Plan, state: State | None) -> Engine:
        torch.manual_seed(self.loop.seed)  # parts that are new in this training start alike on every worker
        model = self.task.build()
        model.train()
        weights = None
        if state is not None:
            weights = self.checkpoints.weights(state.step)
            # Into the module before it is sharded: setting only the masters leaves the first forward the old weights.
            apply_weights(model, weights, self.checkpoints.path(state.step), round_off=True)
        try:
            engine = Engine(
                model, self.task.group_of, self.task.groups, self.loop, self.optimizer, self.context, plan.micro_batches
            )
        except ValueError as error:
            raise UserError(str(error)) from error
        if state is not None and weights is not None:
            updates = state.step if state.updates is None else state.updates
            engine.restore(weights, self.checkpoints.moments(state.step), updates, state.loss_scale)
        return engine

    def _step(self, engine: Engine, share: StepBatches, plan: Plan, order: SampleOrder) -> tuple[bool, bool]:
        """One optimizer step: the gradient of the mean loss over the whole global batch.

        Returns:
            Whether any worker was asked to end, and whether a machine is about to be taken.
        """
        begun = time.perf_counter()
        step = share.step
        torch.manual_seed(_mix(self.loop.seed, step, self.context.rank))  # dropout: a function of seed and step
        rates = engine.set_rates(self.optimizer.factor(step, plan.steps))
        live = [0.0 if empty else batch.weight for batch, empty in zip(share.micro_batches, share.empty, strict=True)]
        total, all_tokens = self.context.sum(sum(live), share.tokens)
        # DeepSpeed averages over workers and micro-batches. Undoing that and dividing by the whole batch's weight makes
        # every sample (or token) count alike, however unevenly the batch is split.
        scale = self.context.world * plan.micro_batches / max(total, 1e-9)
        loss = torch.zeros((), dtype=torch.float64, device=self.context.device)
        for number, (batch, weight) in enumerate(zip(share.micro_batches, live, strict=True)):
            output = self.task.forward(engine.module, batch.to(self.context.device))
            counted = output.loss if weight else output.loss * 0.0
            loss += counted.detach().double()
            engine.backward(counted.float() * scale)
            last = number + 1 == plan.micro_batches
            if last:
                asked, due = self.interrupts.stop, self.context.is_main and self.interrupts.due()
                summed, stop, look = self.context.sum(loss, asked, due)
                mean = summed / max(total, 1e-9)
                self._require_finite("loss", mean, step, rates, share.micro_batches)
            engine.step(last)
        if engine.diverged:
            norm = math.nan if engine.gradient_norm is None else engine.gradient_norm
            self._require_finite("gradient's norm", norm, step, rates, share.micro_batches)
        size = min(order.batch_size, plan.samples - step * order.batch_size)
        report = Step(
            step=step,
            epoch=min((step + 1) * order.batch_size, plan.samples) / order.samples_per_epoch,
            loss=mean,
            rates=rates,
            gradient_norm=engine.gradient_norm,
            loss_scale=None if engine.loss_scale is None else engine.loss_scale["cur_scale"],
            samples=size,
            tokens=int(all_tokens),
            seconds=time.perf_counter() - begun + share.waited,
            waited=share.waited,
            ids=[
                name for b, empty in zip(share.micro_batches, share.empty, strict=True) if not empty for name in b.ids
            ],
        )
        for callback in self.callbacks:
            callback.step(report)
        self._log(report, plan)
        return stop > 0, look > 0 and self.interrupts.preempted()

    def _require_finite(
        self, what: str, value: float, step: int, rates: Mapping[str, float], batches: Sequence[Batch]
    ) -> None:
        if math.isfinite(value):
            return
        ids = [name for batch in batches for name in batch.ids][:8]
        rate = ", ".join(f"{group} {value:.2e}" for group, value in rates.items())
        raise Diverged(
            f"The {what} of step {step} is {value} (learning rate {rate}; samples of this worker {ids}). Lower "
            "optimizer.learning_rate, lengthen optimizer.warmup or lower optimizer.clip_norm; checkpoints of the steps "
            f"before are in {self.checkpoints.folder}."
        )

    def _log(self, step: Step, plan: Plan) -> None:
        """Return a record every so many steps, with the speed since the last one."""
        self._interval.append(step)
        done = step.step + 1
        if done % self.loop.log_every and done not in plan.validations:
            return
        seconds = max(sum(one.seconds for one in self._interval), 1e-9)
        record: Record = {
            "kind": "train",
            "step": done,
            "epoch": round(step.epoch, 4),
            "loss": sum(one.loss for one in self._interval) / len(self._interval),
            **{f"learning_rate/{group}": rate for group, rate in step.rates.items()},
            "samples_per_second": sum(one.samples for one in self._interval) / seconds,
            "tokens_per_second": sum(one.tokens for one in self._interval) / seconds,
            "data_wait": sum(one.waited for one in self._interval) / seconds,
            "workers": self.context.world,
        }
        if step.loss_scale is not None:
            record["loss_scale"] = step.loss_scale
        if step.gradient_norm is not None and math.isfinite(step.gradient_norm):  # of an overflow there is none
            record["gradient_norm"] = step.gradient_norm
        if self.context.device.type == "cuda":
            record["gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self._interval = []
        self._tell(record)

    def _tell(self, record: Record) -> None:
        self.history.append(record)
        for callback in self.callbacks:
            callback.record(record)

    def _validate(self, engine: Engine, data: TrainingData, done: int, plan: Plan, order: SampleOrder) -> bool:
        """The task's metrics over the validation samples, and the loss; False where it was asked to end before."""
        if not data.validation:
            return True
        sums: dict[str, torch.Tensor] = {}
        torch.manual_seed(0)  # whatever a task draws here is the same in trainings of different seeds
        with engine.evaluating():
            size = self.loop.micro_batch_size or math.ceil(self.loop.batch_size / self.context.world)
            for batch, empty in validation_batches(data, self.context, size):
                if self.context.sum(self.interrupts.stop)[0]:
                    return False
                output = self.task.forward(engine.module, batch.to(self.context.device))
                if empty:
                    continue
                found = {**output.sums, "loss": output.loss.double(), "weight": torch.tensor(batch.weight)}
                for name, value in found.items():
                    value = value.detach().cpu()
                    sums[name] = sums[name] + value if name in sums else value
        total = self.context.sum_named(sums)
        loss = float(total.pop("loss") / total.pop("weight"))
        if math.isfinite(loss) and (self.best is None or loss < self.best[0]) and done > 0:
            self.best = (loss, done)
        epoch = min(done * order.batch_size, plan.samples) / order.samples_per_epoch
        self._tell({"kind": "validation", "step": done, "epoch": round(epoch, 4), "loss": loss,
                    **self.task.metrics(total)})  # fmt: skip
        return True

    def _save(self, engine: Engine, done: int, plan: Plan) -> State:
        """Collect the state from all workers; the main one writes it while the training goes on."""
        loss, step = self.best or (None, None)
        state = State(
            done, min(done * self.loop.batch_size, plan.samples), self.loop.seed, self.identity, dict(self.task.base),
            loss, step, engine.updates, engine.loss_scale, list(self.history), self.context.device_name,
        )  # fmt: skip
        weights, moments = engine.weights(), engine.moments()
        if self.context.is_main:
            self.checkpoints.write(state, weights, moments)
        return state


def _mix(*numbers: int) -> int:
    """One seed of several numbers."""
    import numpy as np

    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def train(task: Any, loop: LoopConfig, optimizer: OptimizerConfig, context: Context, folder: str, identity: str,
          callbacks: Iterable[Callback] = (), interrupts: Interrupts | None = None) -> State:  # fmt: skip
    """Run a training in this process as the worker that `context` says. See `Training`."""
    checkpoints = Checkpoints(folder, loop.keep_checkpoints)
    return Training(task, loop, optimizer, context, checkpoints, identity, callbacks, interrupts).run()
