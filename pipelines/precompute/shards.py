"""The shards of precompute: `shard_rows` images in source order, one block of Ray Data and one result file each.

`pipelines.core.shards` describes the files of a set of shards. Precompute has one set, named `part`, whose result is
the table `tagged`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from pipelines.core import tables
from pipelines.core.shards import ShardIndex, ShardSet


def shard_set(folder: str) -> ShardSet:
    """Return the shards in the folder of a precompute step."""
    return ShardSet(folder, "tagged")


def cut_source(records: Iterable[Any], folder: str, shard_rows: int) -> ShardIndex:
    """Write images as shards and bad records as quarantine, in one pass and in the memory of one shard.

    Args:
        records: `ImageRecord`s and `BadRecord`s of `pipelines.sources`, in source order.
        folder: the folder of the step.
        shard_rows: images per shard.

    Returns:
        The index. Its `counts` has the number of `captions`.
    """
    counts = Counter[str](captions=0)

    def rows() -> Iterator[dict[str, Any]]:
        for record in records:
            row = vars(record)
            counts["captions"] += len(row.get("captions") or ())
            yield row

    return shard_set(folder).cut(rows(), tables.IMAGES, shard_rows, counts)
