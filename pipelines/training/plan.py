"""How many steps a training has, when it validates, and how a worker's share of a batch is split."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.core.errors import UserError
from pipelines.training.config import LoopConfig
from pipelines.training.order import SampleOrder


@dataclass(frozen=True)
class StepPlan:
    """The optimizer steps of a training.

    Attributes:
        steps: number of optimizer steps.
        samples: samples of all steps; the last batch may be smaller than the others.
        validations: the numbers of finished steps after which the training validates.
        micro_batches: number of pieces into which each worker splits its share of a batch.
    """

    steps: int
    samples: int
    validations: frozenset[int]
    micro_batches: int


def plan_steps(loop: LoopConfig, order: SampleOrder, world: int) -> StepPlan:
    """Return the steps of a training.

    Args:
        loop: length, batch size and validation interval.
        order: the order of the training samples.
        world: number of workers.

    Raises:
        UserError: the training has no step.
    """
    epoch = order.samples_per_epoch
    if loop.steps is not None:
        steps, samples = loop.steps, loop.steps * loop.batch_size
    else:
        steps, samples = order.total_steps(loop.epochs), round(epoch * loop.epochs)
    if steps < 1:
        raise UserError(f"loop.epochs is {loop.epochs:g}, which is no step with {epoch} samples; raise loop.epochs.")
    if loop.validate_every:
        validations: Iterable[int] = range(loop.validate_every, steps, loop.validate_every)
    else:
        ends = {-(-epoch * number // loop.batch_size) for number in range(1, samples // epoch + 1)}
        validations = (end for end in ends if end < steps)
    share = math.ceil(loop.batch_size / world)
    micro_batches = math.ceil(share / (loop.micro_batch_size or share))
    return StepPlan(steps, samples, frozenset([*validations, steps]), micro_batches)
