"""Batches, the samples of a task, and a loader that prepares samples ahead of the loop."""

import concurrent.futures
import copy
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch

from pipelines.training.context import Context
from pipelines.training.order import Draw, SampleOrder, split

Processor = TypeVar("Processor")


class PerThread(Generic[Processor]):
    """A copy of a processor for each thread that collates.

    A fast tokenizer stores padding and truncation as state that every call sets: two threads with the same tokenizer
    could pad with each other's settings.
    """

    def __init__(self, processor: Processor) -> None:
        self._original, self._local = processor, threading.local()

    def get(self) -> Processor:
        """Return this thread's copy."""
        if not hasattr(self._local, "processor"):
            self._local.processor = copy.deepcopy(self._original)
        return self._local.processor


@dataclass(frozen=True)
class Batch:
    """Samples as tensors.

    Attributes:
        tensors: the model's inputs by argument name.
        weight: what the sum of losses is divided by: the number of samples, or of answer tokens.
        ids: ids of the samples.
        tokens: number of tokens that the model reads and writes.
        tasks: task of each sample; empty where the training has a single task.
    """

    tensors: Mapping[str, torch.Tensor]
    weight: float
    ids: tuple[str, ...]
    tokens: int = 0
    tasks: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device. To a GPU it is copied from pinned memory, while the GPU computes."""
        if device.type == "cpu":
            return self
        moved = {name: value.pin_memory().to(device, non_blocking=True) for name, value in self.tensors.items()}
        return Batch(moved, self.weight, self.ids, self.tokens, self.tasks)


class TrainingData(Protocol):
    """The samples of a task. The loader calls `load` and `collate` from several threads."""

    @property
    def pools(self) -> Sequence[int]:
        """Number of training samples in each pool."""

    @property
    def ratios(self) -> Sequence[float] | None:
        """The pools' shares of a batch; None: in proportion to their sizes."""

    @property
    def validation(self) -> Sequence[Draw]:
        """The validation samples, the same in every validation."""

    def load(self, draw: Draw) -> Any:
        """Return one decoded sample. Random choices depend only on the draw and the seed."""

    def collate(self, samples: Sequence[Any]) -> Batch:
        """Return the samples as one batch."""


@runtime_checkable
class Lengths(Protocol):
    """Training data whose samples are padded to the longest of their batch."""

    def length(self, draw: Draw) -> int:
        """Return the approximate length of the sample's text, in any unit."""


@dataclass(frozen=True)
class StepBatches:
    """A worker's share of one global batch.

    Attributes:
        step: number of the step, from 0.
        micro_batches: the pieces that the worker computes one after the other.
        empty: which micro-batches do not count. Every worker must take part in every collective, so a worker without
            samples computes a sample of another worker, with weight 0.
        waited: seconds that the loop waited for the batches.
    """

    step: int
    micro_batches: tuple[Batch, ...]
    empty: tuple[bool, ...]
    waited: float = 0.0

    @property
    def ids(self) -> list[str]:
        """Ids of the samples that count, in order."""
        return [name for batch, empty in self._pairs() if not empty for name in batch.ids]

    @property
    def tokens(self) -> int:
        """Number of tokens that count."""
        return sum(batch.tokens for batch, empty in self._pairs() if not empty)

    @property
    def weights(self) -> list[float]:
        """Weight of each micro-batch; 0 for one that does not count."""
        return [0.0 if empty else batch.weight for batch, empty in self._pairs()]

    def _pairs(self) -> Iterator[tuple[Batch, bool]]:
        return zip(self.micro_batches, self.empty, strict=True)


class Loader:
    """A loader that reads ahead: a pool of threads prepares the next steps while the loop computes.

    Args:
        data: the samples.
        order: the samples of each step.
        context: rank and number of workers, which decide this worker's share.
        micro_batches: number of pieces of a share.
        limit: number of samples of the whole training.
        threads: number of steps that are prepared at the same time.
        ahead: number of steps that are ready or in preparation.
    """

    def __init__(
        self, data: TrainingData, order: SampleOrder, context: Context, micro_batches: int, limit: int,
        threads: int, ahead: int,
    ) -> None:  # fmt: skip
        self._data, self._order, self._context = data, order, context
        self._micro_batches, self._limit = micro_batches, limit
        self._threads, self._ahead = threads, ahead

    def steps(self, start: int, stop: int) -> Iterator[StepBatches]:
        """Yield this worker's share of every step from `start` to `stop - 1`; raise the first error of loading."""
        with concurrent.futures.ThreadPoolExecutor(self._threads, thread_name_prefix="samples") as pool:
            coming: list[concurrent.futures.Future[StepBatches]] = []
            submitted = start
            try:
                for _ in range(start, stop):
                    while submitted < stop and len(coming) < self._ahead:
                        coming.append(pool.submit(self._make, submitted, self._order.batch(submitted, self._limit)))
                        submitted += 1
                    begun = time.perf_counter()
                    share = coming.pop(0).result()
                    waited = time.perf_counter() - begun
                    yield StepBatches(share.step, share.micro_batches, share.empty, waited)
            finally:
                for future in coming:
                    future.cancel()

    def _make(self, step: int, batch: Sequence[Draw]) -> StepBatches:
        if self._micro_batches > 1 and isinstance(self._data, Lengths):
            # Sorting changes only which samples are padded together: micro-batches that all workers compute at the same
            # time get similar lengths. The global batch stays the same.
            batch = sorted(batch, key=self._data.length)
        share = split(batch, self._context.world, self._micro_batches)[self._context.rank]
        batches = [self._data.collate([self._data.load(draw) for draw in piece or batch[:1]]) for piece in share]
        return StepBatches(step, tuple(batches), tuple(not piece for piece in share))


def validation_batches(data: TrainingData, context: Context, size: int) -> Iterator[tuple[Batch, bool]]:
    """Yield this worker's batches of the validation samples, each with a flag: whether it does not count.

    All workers get the same number of batches, because each batch has collectives; a batch that only fills up the
    number does not count.
    """
    draws = list(data.validation)
    batches = [draws[first : first + size] for first in range(0, len(draws), size)]
    for turn in range(-(-len(batches) // context.world)):
        number = turn * context.world + context.rank
        chosen = batches[number] if number < len(batches) else batches[0]
        yield data.collate([data.load(draw) for draw in chosen]), number >= len(batches)


def generator(seed: int, *parts: int) -> np.random.Generator:
    """Return a random generator that depends only on the seed and the numbers in `parts`."""
    return np.random.default_rng([seed, *parts])
