"""The answers to missing shards: from a fixed pool of actors through Ray Data, or from this process."""

import dataclasses
import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipelines.core import shards as core_shards
from pipelines.core.errors import UserError
from pipelines.core.runtime import require_resources
from pipelines.evaluation.config import InferenceConfig
from pipelines.evaluation.shards import AnswerShard
from pipelines.inference.answerer import AnswererSettings

if TYPE_CHECKING:
    from ray.data import Dataset

log = logging.getLogger("lion.evaluate")
_SECONDS_BETWEEN_LINES = 5.0


@dataclasses.dataclass(frozen=True)
class InferencePool:
    """A fixed pool of actors: each of `actors` holds `cpus` and `gpus` while the run lasts.

    The size is fixed: a pool that grows would start with one model while all other shards wait.
    """

    actors: int
    cpus: float
    gpus: float


def plan_pool(config: InferenceConfig) -> InferencePool:
    """Return the pool of the connected Ray cluster, with defaults for the fields that the user left empty.

    Raises:
        UserError: the cluster can never hold the pool and the one CPU that distributes the shards (P11).
    """
    import ray

    total = ray.cluster_resources()
    gpus = config.gpus if config.gpus is not None else float(total.get("GPU", 0) >= 1)
    cpus = config.cpus or (1.0 if gpus else float(max(1, (int(total.get("CPU", 1)) - 1) // 2)))
    actors = config.actors or (max(1, int(total.get("GPU", 0) / gpus)) if gpus else 1)
    needed = {"CPU": actors * cpus + 1} | ({"GPU": actors * gpus} if gpus else {})
    require_resources(needed, f"Evaluation ({actors} actors of {cpus:g} CPU and {gpus:g} GPU, and one more CPU)")
    return InferencePool(actors, cpus, gpus)


def plan_local(config: InferenceConfig) -> InferencePool:
    """Return the resources of this process, for a run without Ray.

    Raises:
        UserError: the configuration requests several actors.
    """
    import torch

    if config.actors is not None and config.actors > 1:
        raise UserError("inference.launcher local is one process; leave inference.actors out, or take launcher ray.")
    gpus = config.gpus if config.gpus is not None else float(torch.cuda.is_available())
    return InferencePool(1, config.cpus or float(os.cpu_count() or 1), gpus)


def answer_locally(folder: str, missing: Sequence[int], settings: AnswererSettings) -> Iterator[int]:
    """Answer the missing shards in this process, in order; yield the number of rows of each as it is written."""
    shard_answerer = AnswerShard(folder, settings)
    for shard in missing:
        yield shard_answerer.answer(shard)


def answer_distributed(
    folder: str, missing: Sequence[int], settings: AnswererSettings, pool: InferencePool
) -> Iterator[int]:
    """Answer the missing shards with actors; yield the number of rows of each as it is written, in any order.

    If an actor dies, another one answers its shard again and writes the same content.
    """

    def dataset() -> "Dataset":
        from ray.data import ActorPoolStrategy

        # A batch is a whole block and a block is a shard, so that shards are neither split nor merged.
        return core_shards.from_items([{"shard": shard} for shard in missing]).map_batches(
            AnswerShard,
            fn_constructor_args=(folder, settings),
            compute=ActorPoolStrategy(size=min(pool.actors, len(missing))),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            batch_format="pyarrow",
            batch_size=None,
        )

    for proof in core_shards.run(dataset):
        yield int(proof["rows"])


def report_progress(rows_by_shard: Iterator[int], expected_rows: float) -> None:
    """Consume the numbers of answered rows and log the progress every few seconds and at the end.

    Args:
        rows_by_shard: the number of rows of each shard, yielded when the shard is written.
        expected_rows: the number of rows of all these shards.
    """
    started = last_line = time.monotonic()
    shards = rows = 0
    for count in rows_by_shard:
        shards, rows, now = shards + 1, rows + count, time.monotonic()
        if now - last_line >= _SECONDS_BETWEEN_LINES:
            last_line, rate = now, rows / (now - started)
            log.info("%d rows answered, %.1f rows/s, %.0f s left", rows, rate, max(0.0, expected_rows - rows) / rate)
    seconds = time.monotonic() - started
    log.info("%d rows in %d shards answered in %.1f s (%.1f rows/s)", rows, shards, seconds, rows / seconds)
