"""The training loop, the same for every training and every launcher.

`train` reads top to bottom: for each step set the learning rates, compute the micro-batches (forward, backward), update
the weights, log, validate, and write a checkpoint. It does not use Ray: a launcher calls it once in each worker.
"""

import math
import time
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pipelines.core.errors import UserError
from pipelines.training.callbacks import Callback
from pipelines.training.checkpoint import Checkpoints, State
from pipelines.training.config import LoopConfig, OptimizerConfig
from pipelines.training.context import Context
from pipelines.training.data import Loader, StepBatches, validation_batches
from pipelines.training.engine import Engine
from pipelines.training.interrupts import Interrupts
from pipelines.training.task import Task
from pipelines.training.training_run import TrainingRun


class Diverged(UserError):
    """A loss or gradient that is no finite number. Earlier checkpoints stay."""


def train(
    task: Task,
    loop: LoopConfig,
    optimizer: OptimizerConfig,
    context: Context,
    folder: str,
    identity: str,
    callbacks: Iterable[Callback] = (),
    interrupts: Interrupts | None = None,
) -> State:
    """Train from the last checkpoint, or from the start weights, to the last step; return the last checkpoint's state.

    Args:
        task: model, data, loss and metrics.
        loop: length, batch size, precision and intervals.
        optimizer: AdamW, learning rates and their schedule.
        context: rank, device and number of workers.
        folder: URI of the folder of the checkpoints.
        identity: hash of the training step; checkpoints of another one are refused.
        callbacks: what is called for each step, record and checkpoint.
        interrupts: requests from outside to save or to stop.

    Raises:
        UserError: the data is empty, a sample cannot be read, the loss is not finite, or nothing can be saved.
        Stopped: a request to stop arrived; the training has saved a checkpoint.
    """
    interrupts = interrupts or Interrupts()
    run = TrainingRun(task, loop, context, Checkpoints(folder, loop.keep_checkpoints), identity, callbacks)
    if run.state is not None and run.is_complete:
        return run.state
    plan, engine = run.plan, run.build_engine(optimizer)
    run.start_callbacks(engine)
    if run.start in {0, *plan.validations} and not run.has_validated(run.start):
        if not _validate(run, engine, run.start, interrupts):
            raise run.stopped(run.start)
        if run.start:
            run.save(engine, run.start)
    loader = Loader(run.data, run.order, context, plan.micro_batches, plan.samples, loop.loader_threads, loop.prefetch)
    try:
        for share in loader.steps(run.start, plan.steps):
            begun, done = time.perf_counter(), share.step + 1
            # Learning rates and dropout are functions of seed and step, so that a resumed step repeats exactly.
            torch.manual_seed(_mix(loop.seed, share.step, context.rank))
            rates = engine.set_rates(optimizer.factor(share.step, plan.steps))

            # DeepSpeed averages over workers and micro-batches. Undoing that and dividing by the whole batch's weight
            # makes every sample (or token) count the same, however unevenly the batch is split.
            weight, tokens = context.sum(sum(share.weights), share.tokens)
            scale = context.world * plan.micro_batches / max(weight, 1e-9)
            loss = torch.zeros((), dtype=torch.float64, device=context.device)
            for number, (batch, batch_weight) in enumerate(zip(share.micro_batches, share.weights, strict=True), 1):
                output = task.forward(engine.module, batch.to(context.device))
                batch_loss = output.loss if batch_weight else output.loss * 0.0
                loss += batch_loss.detach().double()
                engine.backward(batch_loss.float() * scale)
                if number < plan.micro_batches:
                    engine.step(last=False)

            # The workers share loss and requests before the update: all of them stop after the same step, and a loss
            # that is no number never reaches the weights.
            loss_sum, stop_requests, due = context.sum(loss, interrupts.stop, context.is_main and interrupts.due())
            mean_loss, stop = loss_sum / max(weight, 1e-9), stop_requests > 0
            _require_finite("loss", mean_loss, share, rates, folder)
            engine.step(last=True)
            if engine.diverged:
                _require_finite("gradient's norm", engine.gradient_norm or math.nan, share, rates, folder)

            run.log_step(share, engine, mean_loss, rates, int(tokens), time.perf_counter() - begun + share.waited)
            preempted = due > 0 and interrupts.preempted()
            if done in plan.validations and not stop:
                # An interrupted validation leaves no record, and the resumed training starts with it.
                stop = not _validate(run, engine, done, interrupts)
            if stop or preempted or done in plan.validations or done % loop.checkpoint_every == 0:
                run.save(engine, done)
            if stop:
                raise run.stopped(done)
    finally:
        run.checkpoints.wait()  # an error in a step must not cost the checkpoint before it
    context.barrier()  # no worker leaves before the last checkpoint is written
    assert run.state is not None  # the last step is among the validations
    return run.state


def _validate(run: TrainingRun, engine: Engine, done: int, interrupts: Interrupts) -> bool:
    """Record the validation loss and the task's metrics; return False where a request to stop ended it early.

    Args:
        run: receives the record.
        engine: the model.
        done: number of finished steps.
        interrupts: requests to stop.
    """
    if not run.data.validation:
        return True
    task, loop, context = run.task, run.loop, run.context
    sums: dict[str, Tensor] = {}
    torch.manual_seed(0)  # trainings of different seeds draw the same random numbers here: their losses are compared
    with engine.evaluating():
        size = loop.micro_batch_size or math.ceil(loop.batch_size / context.world)
        for batch, empty in validation_batches(run.data, context, size):
            if context.sum(interrupts.stop)[0]:
                return False
            output = task.forward(engine.module, batch.to(context.device))
            if empty:
                continue
            values = {**output.sums, "loss": output.loss.double(), "weight": torch.tensor(batch.weight)}
            for name, value in values.items():
                value = value.detach().cpu()
                sums[name] = sums[name] + value if name in sums else value
    total = context.sum_named(sums)
    loss = float(total.pop("loss") / total.pop("weight"))
    run.record_validation(done, loss, task.metrics(total))
    return True


def _require_finite(quantity: str, value: float, share: StepBatches, rates: Mapping[str, float], folder: str) -> None:
    """Refuse a loss or a gradient's norm that is infinite or not a number.

    Raises:
        Diverged: with the step, the learning rates, and the samples of this worker.
    """
    if math.isfinite(value):
        return
    ids = [name for batch in share.micro_batches for name in batch.ids][:8]
    learning_rates = ", ".join(f"{group} {rate:.2e}" for group, rate in rates.items())
    raise Diverged(
        f"The {quantity} of step {share.step} is {value} (learning rate {learning_rates}; samples of this worker "
        f"{ids}). Lower optimizer.learning_rate, lengthen optimizer.warmup or lower optimizer.clip_norm; the "
        f"checkpoints of earlier steps are in {folder}."
    )


def _mix(*numbers: int) -> int:
    """Return one 63-bit seed made of several numbers."""
    import numpy as np

    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> np.uint64(1))
