"""Precompute's shards: `shard_rows` images in source order, one block of Ray Data and one file of the result each.

`pipelines.core.shards` says which files a set of shards has; precompute has one, named `part`, of the table `tagged`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from pipelines.core import tables
from pipelines.core.shards import ShardIndex, ShardSet


def shard_set(folder: str) -> ShardSet:
    """Return the shards in a precompute step's folder."""
    return ShardSet(folder, "tagged")


def cut_source(records: Iterable[Any], folder: str, shard_rows: int) -> ShardIndex:
    """Write images as shards and bad records as quarantine, in one pass and in the memory of one shard.

    Args:
        records: `ImageRecord`s and `BadRecord`s of `pipelines.sources`, in source order.
        folder: the step's folder.
        shard_rows: images a shard.

    Returns:
        the index; its counts say how many `captions` there are.
    """
    counts = Counter[str](captions=0)

    def rows() -> Iterator[dict[str, Any]]:
        for record in records:
            row = vars(record)
            counts["captions"] += len(row.get("captions") or ())
            yield row

    return shard_set(folder).cut(rows(), tables.IMAGES, shard_rows, counts)
