"""The shards that are missing, through Ray Data: one block is one shard from end to end.

    shard numbers → caption actors → decode tasks → tagger actors → commit tasks → proofs

At the pinned Ray this needs, besides `pipelines.core.shards`, remote arguments that differ between decoding and its
neighbors (it would fuse decoding into the tagger's actors, where it runs one image after another while the model
waits). Tests hold all of it.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.core import shards
from pipelines.core.shards import ShardIndex
from pipelines.precompute.config import Precision, PrecomputeConfig
from pipelines.precompute.plan import Plan, Pool
from pipelines.precompute.stages import Caption, Commit, Decode, ReadShard, Tag
from pipelines.precompute.taggers import Tagger

if TYPE_CHECKING:
    from ray.data import Dataset

_TASK_BASE = 256 * 2**20


def run_shards(
    missing: Sequence[int],
    folder: str,
    index: ShardIndex,
    config: PrecomputeConfig,
    tagger: Tagger,
    plan: Plan,
    precision: Precision,
    metadata: Mapping[str, str],
) -> Generator[dict[str, Any], None, None]:
    """Compute shards and yields the proof of each as it is committed, in any order.

    Closing the iterator ends the pipeline; committed shards stay.
    """
    yield from shards.run(lambda: make_dataset(missing, folder, index, config, tagger, plan, precision, metadata))


def make_dataset(
    missing: Sequence[int],
    folder: str,
    index: ShardIndex,
    config: PrecomputeConfig,
    tagger: Tagger,
    plan: Plan,
    precision: Precision,
    metadata: Mapping[str, str],
) -> "Dataset":
    """Return the lazy dataset of proofs; nothing runs yet."""
    whole: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None}
    task: dict[str, Any] = {"num_cpus": 1, "memory": task_memory(config, tagger), **whole}
    numbers = shards.from_items([{"shard": shard} for shard in missing])
    if plan.captioner:
        encoder = (folder, config.captioner, plan.captioner.gpus, _threads(plan.captioner))
        images = numbers.map_batches(Caption, fn_constructor_args=encoder, **_pool(plan.captioner), **whole)
    else:
        images = numbers.map_batches(ReadShard(folder).__call__, **task)
    decode = Decode(tagger.image_size, config.max_pixels, config.jpeg_draft, config.embed_bytes)
    model = (tagger, plan.tagger.gpus, _threads(plan.tagger), precision)
    return (
        images.map_batches(decode.__call__, **task)
        .map_batches(Tag, fn_constructor_args=model, **_pool(plan.tagger), **whole)
        .map_batches(Commit(folder, index, metadata).__call__, **task)
    )


def _pool(pool: Pool) -> dict[str, Any]:
    """Return a fixed pool: no ramp, and nothing that could wait for CPUs which tasks hold."""
    from ray.data import ActorPoolStrategy

    return {
        "compute": ActorPoolStrategy(size=pool.actors),
        "num_cpus": pool.cpus,
        "num_gpus": pool.gpus,
    }


def task_memory(config: PrecomputeConfig, tagger: Tagger) -> int:
    """Bytes that a task may need: a shard's pixels three times (made, gathered, stored) and room for one large image.

    It keeps Ray from starting more decoding than a node can hold. That actors ask for none keeps Ray Data from fusing
    decoding into them.
    """
    side = tagger.image_size or 0
    return _TASK_BASE + 3 * config.shard_rows * side * side * 3


def _threads(pool: Pool) -> int:
    return max(1, int(pool.cpus))
