"""Tables that all workers of a machine share, and samples that are ready before the loop asks for them."""

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
    """A processor of its own for each thread that collates.

    A fast tokenizer keeps its padding and truncation as state that each call sets; two threads with one of them could
    pad by each other's rule.
    """

    def __init__(self, processor: Processor) -> None:
        self._original, self._local = processor, threading.local()

    def get(self) -> Processor:
        """This thread's copy."""
        if not hasattr(self._local, "processor"):
            self._local.processor = copy.deepcopy(self._original)
        return self._local.processor


@dataclass(frozen=True)
class Batch:
    """Samples as tensors.

    Attributes:
        tensors: by the model's argument names.
        weight: how much the batch's mean loss counts: samples, or tokens of the answers.
        ids: the samples' ids.
        tokens: tokens that the model reads and writes.
        tasks: the samples' tasks, where there are several.
    """

    tensors: Mapping[str, torch.Tensor]
    weight: float
    ids: tuple[str, ...]
    tokens: int = 0
    tasks: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Batch":
        """Return the same batch on a device; copies overlap with computing where memory is pinned."""
        if device.type == "cpu":
            return self
        moved = {name: value.pin_memory().to(device, non_blocking=True) for name, value in self.tensors.items()}
        return Batch(moved, self.weight, self.ids, self.tokens, self.tasks)


class TrainingData(Protocol):
    """What a task trains on. `load` and `collate` are called from several threads."""

    @property
    def pools(self) -> Sequence[int]:
        """Training samples in each pool."""

    @property
    def ratios(self) -> Sequence[float] | None:
        """The pools' shares of a batch; None: by size."""

    @property
    def validation(self) -> Sequence[Draw]:
        """The validation samples, always drawn alike."""

    def load(self, draw: Draw) -> Any:
        """One sample, decoded; what is drawn for it by chance depends on the draw and the seed alone."""

    def collate(self, samples: Sequence[Any]) -> Batch:
        """Sample as a batch."""


@runtime_checkable
class Lengths(Protocol):
    """Training data whose samples are padded to each other's length."""

    def length(self, draw: Draw) -> int:
        """About how long the sample's text is, in any unit."""


@dataclass(frozen=True)
class StepBatches:
    """A worker's share of one global batch.

    Attributes:
        step: which one.
        micro_batches: what it computes, one after the other.
        empty: which of them stand for nothing: collectives must be met by every worker, so that a worker without
            samples computes one of another's, which then counts nothing.
        waited: seconds that the loop waited for them.
    """

    step: int
    micro_batches: tuple[Batch, ...]
    empty: tuple[bool, ...]
    waited: float = 0.0

    @property
    def ids(self) -> list[str]:
        """The samples' ids, in order."""
        return [name for batch, empty in self._pairs() if not empty for name in batch.ids]

    @property
    def tokens(self) -> int:
        """Tokens that count."""
        return sum(batch.tokens for batch, empty in self._pairs() if not empty)

    def _pairs(self) -> Iterator[tuple[Batch, bool]]:
        return zip(self.micro_batches, self.empty, strict=True)


class Loader:
    """Reads ahead: a pool of threads turns the coming steps into tensors while the loop computes.

    Args:
        data: the samples.
        order: which of them each step takes.
        context: which share is this worker's.
        micro_batches: pieces of a share.
        limit: samples of the whole training.
        threads: steps that are made at the same time.
        ahead: steps that are ready or being made.
    """

    def __init__(
        self, data: TrainingData, order: SampleOrder, context: Context, micro_batches: int, limit: int,
        threads: int, ahead: int,
    ) -> None:  # fmt: skip
        self._data, self._order, self._context = data, order, context
        self._micro_batches, self._limit = micro_batches, limit
        self._threads, self._ahead = threads, ahead

    def steps(self, start: int, stop: int) -> Iterator[StepBatches]:
        """The share of every step from `start` up to, not including, `stop`; raises what loading a sample raised."""
        with concurrent.futures.ThreadPoolExecutor(self._threads, thread_name_prefix="samples") as pool:
            coming: list[concurrent.futures.Future[StepBatches]] = []
            asked = start
            try:
                for _ in range(start, stop):
                    while asked < stop and len(coming) < self._ahead:
                        coming.append(pool.submit(self._make, asked, self._order.batch(asked, self._limit)))
                        asked += 1
                    begun = time.perf_counter()
                    made = coming.pop(0).result()
                    waited = time.perf_counter() - begun
                    yield StepBatches(made.step, made.micro_batches, made.empty, waited)
            finally:
                for future in coming:
                    future.cancel()

    def _make(self, step: int, batch: Sequence[Draw]) -> StepBatches:
        if self._micro_batches > 1 and isinstance(self._data, Lengths):
            # The batch stays the same, only who is padded with whom: the micro-batches that all workers compute at the
            # same time become alike in length.
            batch = sorted(batch, key=self._data.length)
        share = split(batch, self._context.world, self._micro_batches)[self._context.rank]
        made = [self._data.collate([self._data.load(draw) for draw in piece or batch[:1]]) for piece in share]
        return StepBatches(step, tuple(made), tuple(not piece for piece in share))


def validation_batches(data: TrainingData, context: Context, size: int) -> Iterator[tuple[Batch, bool]]:
    """This worker's share of the validation samples and whether a batch only keeps the others company."""
    draws = list(data.validation)
    batches = [draws[first : first + size] for first in range(0, len(draws), size)]
    for turn in range(-(-len(batches) // context.world)):
        number = turn * context.world + context.rank
        chosen = batches[number] if number < len(batches) else batches[0]
        yield data.collate([data.load(draw) for draw in chosen]), number >= len(batches)


def generator(seed: int, *parts: int) -> np.random.Generator:
    """Chance that depends on the numbers given alone."""
    return np.random.default_rng([seed, *parts])
