"""Shards: equal pieces of a source that Ray Data processes independently. A killed step resumes with the missing ones.

`precompute` and `instructions` use them. Files of a set of shards NAME with the result RESULT, in a step's folder:

    source/NAME-00000000.parquet       `shard_rows` records in source order
    source/NAME.json                   numbers of records and bad records; written last
    quarantine/annotations@NAME-….parquet  records that could not be read
    RESULT/NAME-00000000.parquet       the shard's result
    quarantine/NAME-00000000.parquet   its rows that could not be used; no file if all could be used
    done/NAME-00000000.json            its counts and digests; written last, as the proof that the shard is complete

Each block of Ray Data holds exactly one shard in all stages. With the pinned version of Ray this needs two settings: no
upper block size (Ray Data would split large blocks) and `batch_size=None` in every stage (it would merge small blocks).
Tests check both.
"""

import copy
import dataclasses
import errno
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core import storage, tables
from pipelines.core.errors import UserError
from pipelines.core.parquet import write_parquet

if TYPE_CHECKING:
    from ray.data import DataContext, Dataset

T = TypeVar("T")
Proof = dict[str, Any]
"""Entry of a finished shard: its number, its counts and its `files`."""
_BAD_RECORDS_A_FILE = 10_000


@dataclasses.dataclass(frozen=True)
class ShardIndex:
    """Size of a source that was cut into shards.

    Attributes:
        rows: number of records.
        shard_rows: records per shard; the last shard has the rest.
        bad_records: number of quarantined records by reason.
        files: the files of the quarantined records, as manifests list files.
        counts: other counts of the source's reader.
    """

    rows: int
    shard_rows: int
    bad_records: Mapping[str, int]
    files: Sequence[Mapping[str, Any]]
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.rows // self.shard_rows)

    def rows_of(self, shard: int) -> int:
        """Return the number of records of a shard."""
        return min(self.shard_rows, self.rows - shard * self.shard_rows)


@dataclasses.dataclass(frozen=True)
class ShardSet:
    """File names and states of the shards of one source in a step's folder; see the module's docstring.

    Attributes:
        folder: the step's folder.
        result: the name of the results' folder in it.
        name: the name of the set.
    """

    folder: str
    result: str
    name: str = "part"

    def source_file(self, shard: int) -> str:
        """Return the URI of the file with a shard's records."""
        return storage.join(self.folder, f"source/{self.name}-{shard:08d}.parquet")

    def result_name(self, shard: int) -> str:
        """Return the name of a shard's result file, relative to the folder."""
        return f"{self.result}/{self.name}-{shard:08d}.parquet"

    def quarantine_name(self, shard: int) -> str:
        """Return the name of the file with a shard's unusable rows, relative to the folder."""
        return f"quarantine/{self.name}-{shard:08d}.parquet"

    def result_file(self, shard: int) -> str:
        """Return the URI of a shard's result file."""
        return storage.join(self.folder, self.result_name(shard))

    def quarantine_file(self, shard: int) -> str:
        """Return the URI of the file with a shard's unusable rows."""
        return storage.join(self.folder, self.quarantine_name(shard))

    def done_file(self, shard: int) -> str:
        """Return the URI of the proof that a shard is complete."""
        return storage.join(self.folder, f"done/{self.name}-{shard:08d}.json")

    @property
    def index_file(self) -> str:
        """URI of the source's index."""
        return storage.join(self.folder, f"source/{self.name}.json")

    def done(self) -> set[int]:
        """Return the numbers of the shards that have both a proof and a result."""
        return self._numbers("done", ".json") & self._numbers(self.result, ".parquet")

    def quarantined(self) -> set[int]:
        """Return the numbers of the shards with unusable rows."""
        return self._numbers("quarantine", ".parquet")

    def _numbers(self, folder: str, ending: str) -> set[int]:
        files = map(os.path.basename, storage.list_files(storage.join(self.folder, folder), ending, recursive=False))
        start, end = len(self.name) + 1, len(self.name) + 9
        return {
            int(file[start:end])
            for file in files
            if file.startswith(f"{self.name}-") and file[end:] == ending and file[start:end].isdigit()
        }

    def index(self) -> ShardIndex | None:
        """Return the index, or None if the source is not completely cut."""
        return ShardIndex(**storage.read_json(self.index_file)) if storage.exists(self.index_file) else None

    def write_quarantine(self, shard: int, bad: pa.Table) -> list[dict[str, Any]]:
        """Write a shard's unusable rows, or delete the file of an earlier attempt if there are none now.

        Call this before the shard's result and its proof are written. The proof of an earlier attempt is deleted first:
        a process killed at any point leaves no proof together with the quarantine of another attempt.

        Args:
            shard: the number of the shard.
            bad: a table of `tables.QUARANTINE`.

        Returns:
            A list of the file, as manifests list files; empty if there are no unusable rows.
        """
        storage.delete_file(self.done_file(shard))
        if not bad.num_rows:
            storage.delete_file(self.quarantine_file(shard))
            return []
        return [write_parquet(self.folder, self.quarantine_name(shard), bad)]

    def proofs(self, done: Iterable[int]) -> list[Proof]:
        """Return the proofs of shards, in the order of `done`."""
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(lambda shard: storage.read_json(self.done_file(shard)), done))

    def read(self, shard: int, schema: pa.Schema) -> pa.Table:
        """Read a shard's records."""
        return pq.read_table(pa.BufferReader(storage.read_bytes(self.source_file(shard))), schema=schema)

    def cut(
        self,
        records: Iterable[Mapping[str, Any]],
        schema: pa.Schema,
        shard_rows: int,
        counts: Mapping[str, int] | None = None,
    ) -> ShardIndex:
        """Write records as shards and bad records as quarantine, in one pass and with one shard in memory.

        Args:
            records: rows of `schema`, and rows of `tables.QUARANTINE` (recognized by their `reason`), in source order.
            schema: the schema of the shards.
            shard_rows: records per shard.
            counts: other counts for the index; read when all records are.
        """
        self._forget_cut()
        bad = _BadRecords(self)
        rows = bad.separate(records)
        total = 0
        for shard in itertools.count():
            part = list(itertools.islice(rows, shard_rows))
            if not part:
                break
            total += len(part)
            write_parquet(self.folder, f"source/{self.name}-{shard:08d}.parquet", tables.to_table(part, schema))
        bad.write()
        index = ShardIndex(total, shard_rows, dict(sorted(bad.reasons.items())), bad.files, dict(counts or {}))
        storage.write_json(self.index_file, dataclasses.asdict(index))
        return index

    def _forget_cut(self) -> None:
        """Delete the index, then the bad records, of an earlier attempt to cut the source."""
        storage.delete_file(self.index_file)
        start = f"annotations@{self.name}-"
        for file in storage.list_files(storage.join(self.folder, "quarantine"), ".parquet", recursive=False):
            number = os.path.basename(file).removeprefix(start).removesuffix(".parquet")
            if os.path.basename(file).startswith(start) and len(number) == 8 and number.isdigit():
                storage.delete_file(file)


class _BadRecords:
    """Quarantined records of a source that is being cut."""

    def __init__(self, shards: ShardSet) -> None:
        self._shards = shards
        self._rows: list[Mapping[str, Any]] = []
        self.reasons = Counter[str]()
        self.files: list[dict[str, Any]] = []

    def separate(self, records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Yield the usable records; collect the others."""
        for record in records:
            if "reason" not in record:
                yield record
                continue
            self.reasons[record["reason"]] += 1
            self._rows.append(record)
            if len(self._rows) == _BAD_RECORDS_A_FILE:
                self.write()

    def write(self) -> None:
        """Write the collected records to a new file."""
        if self._rows:
            name = f"quarantine/annotations@{self._shards.name}-{len(self.files):08d}.parquet"
            self.files.append(write_parquet(self._shards.folder, name, tables.to_table(self._rows, tables.QUARANTINE)))
            self._rows = []


def from_items(items: Sequence[Mapping[str, Any]]) -> "Dataset":
    """Return a dataset with a block for each item."""
    import ray

    return ray.data.from_items([dict(item) for item in items], override_num_blocks=len(items))


def run(make_dataset: Callable[[], "Dataset"]) -> Generator[Proof, None, None]:
    """Run a dataset whose last stage returns a column `proof` (JSON) and yield the proofs in the order of completion.

    Closing the iterator stops the run; finished shards stay. The caller's Ray Data settings are not changed.
    """
    from ray.data import DataContext

    with DataContext.current(_context(DataContext.get_current())):
        for block in blocks(make_dataset()):
            yield from map(json.loads, block["proof"].to_pylist())


def blocks(dataset: "Dataset") -> Generator[pa.Table, None, None]:
    """Execute a dataset of Arrow blocks and yield each non-empty block in the order of completion.

    `Dataset.iter_batches` fetches blocks in a thread that outlives the iterator. If Ray is shut down right after a run
    was refused, that thread calls Ray and ends the process. This function fetches in the caller's thread only.

    Raises:
        UserError: a disk on which a stage writes is full.
    """
    import ray
    from ray.exceptions import RayTaskError

    try:
        for bundle in dataset.iter_internal_ref_bundles():
            for entry in bundle.blocks:
                block = ray.get(entry.ref)
                if block.num_rows:
                    yield block
    except RayTaskError as error:  # Ray keeps only the text of the cause
        full = [line for line in str(error).splitlines() if f"[Errno {errno.ENOSPC}]" in line]
        if not full:
            raise
        raise UserError(
            f"A disk is full ({full[-1].strip()}); free space and run the same command again: finished shards are kept."
        ) from error


def _context(current: "DataContext") -> "DataContext":
    context = copy.deepcopy(current)
    context.target_max_block_size = None
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return context


def in_tasks(function: Callable[..., T], calls: Sequence[Sequence[Any]]) -> list[T]:
    """Call a function in Ray tasks of one CPU each and return the results in order.

    Raises:
        UserError: a task raised it; other errors are raised as Ray's `RayTaskError`.
    """
    import ray
    from ray.exceptions import RayTaskError

    remote = ray.remote(num_cpus=1)(function)
    try:
        return ray.get([remote.remote(*arguments) for arguments in calls])
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
