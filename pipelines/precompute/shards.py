"""Shards by name: where each lies, which are done, and the source cut into them once.

source/shard-00000000.parquet      `shard_rows` images in source order (tables.IMAGES)
source/index.json                  how many images and bad records there are; written last
quarantine/annotations-….parquet   records that never became an image
tagged/part-00000000.parquet       the shard's result
quarantine/part-00000000.parquet   its images that could not be used; no file where there are none
done/part-00000000.json            its counts and digests; written last, so that it is the proof
"""

import dataclasses
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage, tables

INDEX = "source/index.json"
_BAD_RECORDS_A_FILE = 10_000


@dataclasses.dataclass(frozen=True)
class SourceIndex:
    """The source as it was cut.

    Attributes:
        rows: images.
        shard_rows: images a shard; the last has the rest.
        captions: captions of all of them.
        bad_records: annotations that were quarantined, by reason.
        files: their files.
    """

    rows: int
    shard_rows: int
    captions: int
    bad_records: Mapping[str, int]
    files: Sequence[Mapping[str, Any]]

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.rows // self.shard_rows)

    def rows_of(self, shard: int) -> int:
        """Images of one shard."""
        return min(self.shard_rows, self.rows - shard * self.shard_rows)


def source_file(folder: str, shard: int) -> str:
    """A shard's images."""
    return storage.join(folder, f"source/shard-{shard:08d}.parquet")


def tagged_file(folder: str, shard: int) -> str:
    """A shard's result."""
    return storage.join(folder, f"tagged/part-{shard:08d}.parquet")


def quarantine_file(folder: str, shard: int) -> str:
    """A shard's images that could not be used."""
    return storage.join(folder, f"quarantine/part-{shard:08d}.parquet")


def done_file(folder: str, shard: int) -> str:
    """The proof that a shard is done."""
    return storage.join(folder, f"done/part-{shard:08d}.json")


def done_shards(folder: str) -> set[int]:
    """The shards whose proof and result are both there."""
    proofs = _numbers(storage.list_files(storage.join(folder, "done"), ".json"))
    return proofs & _numbers(storage.list_files(storage.join(folder, "tagged"), ".parquet"))


def quarantined_shards(folder: str) -> set[int]:
    """The shards with images that could not be used."""
    files = storage.list_files(storage.join(folder, "quarantine"), ".parquet")
    return _numbers(file for file in files if os.path.basename(file).startswith("part-"))


def _numbers(files: Iterable[str]) -> set[int]:
    return {int(os.path.splitext(file)[0][-8:]) for file in files}


def read_index(folder: str) -> SourceIndex | None:
    """The index, or None where the source has not been cut to the end."""
    path = storage.join(folder, INDEX)
    return SourceIndex(**storage.read_json(path)) if storage.exists(path) else None


def cut_source(records: Iterable[Any], folder: str, shard_rows: int) -> SourceIndex:
    """Writes images as shards and bad records as quarantine, in one pass and in the memory of one shard.

    Args:
        records: `ImageRecord`s and `BadRecord`s of `pipelines.sources`, in source order.
        folder: the step's folder.
        shard_rows: images a shard.
    """
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    files: list[Mapping[str, Any]] = []
    bad: list[dict[str, Any]] = []

    def write_bad() -> None:
        if bad:
            name = f"quarantine/annotations-{len(files):08d}.parquet"
            files.append(write_parquet(folder, name, tables.to_table(bad, tables.QUARANTINE)))
            bad.clear()

    def images() -> Iterator[dict[str, Any]]:
        for record in records:
            row = dataclasses.asdict(record)
            if "reason" not in row:
                counts["captions"] += len(row["captions"] or ())
                yield row
                continue
            reasons[row["reason"]] += 1
            bad.append(row)
            if len(bad) == _BAD_RECORDS_A_FILE:
                write_bad()

    rows = images()
    for shard in itertools.count():
        part = list(itertools.islice(rows, shard_rows))
        if not part:
            break
        counts["rows"] += len(part)
        write_parquet(folder, f"source/shard-{shard:08d}.parquet", tables.to_table(part, tables.IMAGES))
    write_bad()
    index = SourceIndex(counts["rows"], shard_rows, counts["captions"], dict(sorted(reasons.items())), files)
    storage.write_json(storage.join(folder, INDEX), dataclasses.asdict(index))
    return index


def write_parquet(folder: str, name: str, table: pa.Table) -> dict[str, Any]:
    """Writes a table atomically; the same table gives the same bytes.

    Returns:
        `path` (relative), `rows` and `sha256`, as manifests list files.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=1)
    content = sink.getvalue().to_pybytes()
    storage.write_atomic(storage.join(folder, name), content)
    return {"path": name, "rows": table.num_rows, "sha256": hashlib.sha256(content).hexdigest()}
