"""The missing shards as a Ray Data pipeline, in which a block is one shard from the first stage to the last.

    shard numbers → caption actors → decode tasks → tagger actors → commit tasks → proofs

Two neighbors with equal resource requests are fused by Ray Data. Decoding must not be fused into the taggers' actors:
there it would run one image after another while the model waits. So decode tasks request memory and actors do not
(see `task_memory`). Tests check this for the pinned Ray.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.core import shards
from pipelines.core.shards import ShardIndex
from pipelines.precompute.config import Precision, PrecomputeConfig
from pipelines.precompute.plan import ModelPlan, ModelPool
from pipelines.precompute.stages import Caption, Commit, Decode, ReadShard, Tag
from pipelines.precompute.taggers import Tagger

if TYPE_CHECKING:
    from ray.data import Dataset

_TASK_BASE = 256 * 2**20
"""Bytes of a task before any pixels: Python, Arrow, and one large image while it is decoded."""


def run_shards(
    missing: Sequence[int],
    folder: str,
    index: ShardIndex,
    config: PrecomputeConfig,
    tagger: Tagger,
    plan: ModelPlan,
    precision: Precision,
    metadata: Mapping[str, str],
) -> Generator[dict[str, Any], None, None]:
    """Compute shards and yield the proof of each as soon as it is committed, in any order.

    Closing the generator stops the pipeline; committed shards stay.

    Args:
        missing: numbers of the shards.
        folder: the folder of the step.
        index: the cut source.
        config: the settings of the run.
        tagger: the tagger, prepared.
        plan: the actor pools.
        precision: the taggers' arithmetic, never `auto`.
        metadata: written into every result file.
    """
    yield from shards.run(lambda: make_dataset(missing, folder, index, config, tagger, plan, precision, metadata))


def make_dataset(
    missing: Sequence[int],
    folder: str,
    index: ShardIndex,
    config: PrecomputeConfig,
    tagger: Tagger,
    plan: ModelPlan,
    precision: Precision,
    metadata: Mapping[str, str],
) -> "Dataset":
    """Return the lazy dataset of proofs; nothing runs until it is read. For the arguments see `run_shards`."""
    # A batch is a whole block, so that no stage splits a shard or merges two.
    whole: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None}
    task: dict[str, Any] = {"num_cpus": 1, "memory": task_memory(config, tagger), **whole}
    numbers = shards.from_items([{"shard": shard} for shard in missing])
    if plan.captioner:
        encoder = (folder, config.captioner, plan.captioner.gpus, _threads(plan.captioner))
        images = numbers.map_batches(Caption, fn_constructor_args=encoder, **_remote_args(plan.captioner), **whole)
    else:
        images = numbers.map_batches(ReadShard(folder).__call__, **task)
    decode = Decode(tagger.image_size, config.max_pixels, config.jpeg_draft, config.embed_bytes)
    model = (tagger, plan.tagger.gpus, _threads(plan.tagger), precision)
    return (
        images.map_batches(decode.__call__, **task)
        .map_batches(Tag, fn_constructor_args=model, **_remote_args(plan.tagger), **whole)
        .map_batches(Commit(folder, index, metadata).__call__, **task)
    )


def _remote_args(pool: ModelPool) -> dict[str, Any]:
    """Return Ray Data's arguments for a pool of a fixed size.

    A pool that grows would start with one model while all others wait, and could later wait forever for CPUs that
    decode tasks hold.
    """
    from ray.data import ActorPoolStrategy

    return {
        "compute": ActorPoolStrategy(size=pool.actors),
        "num_cpus": pool.cpus,
        "num_gpus": pool.gpus,
    }


def task_memory(config: PrecomputeConfig, tagger: Tagger) -> int:
    """Return the bytes that a task requests: a shard's pixels three times (decoded, joined, stored), and a base.

    The request keeps Ray from starting more decode tasks than a node's memory holds. Actors request no memory, which
    keeps Ray Data from fusing decoding into them.
    """
    side = tagger.image_size or 0
    return _TASK_BASE + 3 * config.shard_rows * side * side * 3


def _threads(pool: ModelPool) -> int:
    return max(1, int(pool.cpus))
