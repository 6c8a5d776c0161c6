"""The precomputed images as an index: where each is, how large, what its bytes are, and how long its tags.

Built by Ray Data, one task for each file of the tagged table, then sorted by a hash of the ids into one Arrow file that
the workers map into memory: a look-up costs no Python object an image.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from models.tags import TagRule
from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.parquet import read_file, read_schema, table_files, write_parquet
from pipelines.core.shards import ShardSet
from pipelines.instructions.statistics import USUAL, Tokens, tag_statistics, usual_tags
from pipelines.sources.collection import named_alike
from pipelines.sources.embedded import embedded_digests
from pipelines.sources.ids import hash64
from pipelines.sources.images import BadImage, read_image_bytes

INDEX = "source/images.arrow"
_IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("digest", pa.binary()),
        pa.field("tag_tokens", pa.int32()),
    ]
)
_COLUMNS = ("image_id", "uri", "width", "height")


@dataclasses.dataclass(frozen=True)
class Picture:
    """What is known of a precomputed image.

    Attributes:
        uri: where it is.
        width: in pixels, None where the tagged table does not say.
        height: likewise.
        digest: SHA-256 of the file's bytes; None where nothing had to be compared, or the file is gone.
        tag_tokens: tokens of its usual tags as a prompt lists them; None without a tokenizer.
    """

    uri: str
    width: int | None
    height: int | None
    digest: bytes | None = None
    tag_tokens: int | None = None


def is_another(picture: Picture, file_name: str | None) -> bool:
    """Whether a precomputed picture, by its file's name, cannot be the one of that id and name; None: not known."""
    return file_name is not None and not named_alike(picture.uri, file_name)


def shard_set(folder: str) -> ShardSet:
    """Return the pieces of the index in an instructions step's folder, one for each file of the tagged table."""
    return ShardSet(folder, "source/images", "images@")


def tagged_files(tagged: str) -> list[str]:
    """Return the Parquet files of a tagged table: of a file, of one precompute step, or of a folder with several.

    Raises:
        UserError: nothing is there, or a file lacks a column.
    """
    root = storage.absolute(tagged)
    files = table_files(root)
    if not files or not storage.exists(files[0]):
        raise UserError(f"{tagged} holds no Parquet files; give the `path` of a precompute step.")
    with ThreadPoolExecutor(16) as pool:
        lacking = pool.map(_lacking, files)
        for name, missing in zip(files, lacking, strict=True):
            if missing:
                raise UserError(f"{name} lacks {missing}; it is not a tagged table.")
    return files


def _lacking(file: str) -> list[str]:
    """Return the columns that a Parquet file should have and has not."""
    return sorted(set(_COLUMNS) - set(read_schema(file).names))


class IndexImages:
    """One file of the tagged table → a piece of the index, and a proof with the statistics of its tags.

    Args:
        folder: the step's folder.
        files: of the tagged table.
        digests: whether the images' bytes are read, to compare them.
        tokenizer: folder of a tokenizer, or empty.
        rule: which tags a prompt lists.
    """

    def __init__(self, folder: str, files: Sequence[str], digests: bool, tokenizer: str, rule: TagRule = USUAL) -> None:
        self._rule = rule
        self._shards, self._files, self._digests, self._tokenizer = shard_set(folder), files, digests, tokenizer

    def __call__(self, batch: pa.Table) -> pa.Table:
        (shard,) = batch["shard"].to_pylist()
        table = read_file(self._files[shard], [*_COLUMNS, "tags"])
        tags = table["tags"].to_pylist() if "tags" in table.column_names else [None] * table.num_rows
        digests: list[bytes | None] = [None] * table.num_rows
        if self._digests:
            embedded = embedded_digests(self._files[shard])
            digests = [
                embedded.get(image_id) or _digest(uri)
                for image_id, uri in zip(table["image_id"].to_pylist(), table["uri"].to_pylist(), strict=True)
            ]
        columns = {name: table[name] for name in _COLUMNS}
        columns |= {"digest": pa.array(digests, pa.binary()), "tag_tokens": self._lengths(tags)}
        written = write_parquet(
            self._shards.folder, self._shards.result_name(shard), pa.table(columns).select(_IMAGES.names).cast(_IMAGES)
        )
        proof = {
            "shard": shard,
            "rows": table.num_rows,
            "unreadable": digests.count(None) if self._digests else 0,
            "statistics": tag_statistics(tags, self._rule),
            "files": [written],
        }
        storage.write_json(self._shards.done_file(shard), proof)
        return pa.table({"proof": [json.dumps(proof)]})

    def _lengths(self, tags: Sequence[Any]) -> pa.Array:
        if not self._tokenizer:
            return pa.nulls(len(tags), pa.int32())
        listed = [", ".join(usual_tags(of_image, self._rule)) for of_image in tags]
        return pa.array(Tokens(self._tokenizer).lengths(listed), pa.int32())


def _digest(uri: str) -> bytes | None:
    try:
        return hashlib.sha256(read_image_bytes(uri)).digest()
    except BadImage:  # precompute could read it; now it cannot be compared, which is counted
        return None


def join_index(folder: str, count: int) -> int:
    """Sort the pieces into one Arrow file and return how many images it has.

    Raises:
        UserError: two different images have one id.
    """
    pieces = [read_file(shard_set(folder).result_file(shard)) for shard in range(count)]
    table = pa.concat_tables(pieces).combine_chunks()
    hashes = np.fromiter(map(hash64, table["image_id"].to_pylist()), np.uint64, table.num_rows)
    order = np.argsort(hashes, kind="stable")
    table, hashes = table.take(order), hashes[order]
    kept = _without_doubles(table, hashes)
    table, hashes = table.take(kept), hashes[kept]
    table = table.append_column("hash", pa.array(hashes)).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    storage.write_atomic(storage.join(folder, INDEX), sink.getvalue().to_pybytes())
    return table.num_rows


def _without_doubles(table: pa.Table, hashes: np.ndarray) -> np.ndarray:
    """Return the rows to keep: of an image that several precompute steps hold, the first."""
    kept = np.ones(len(hashes), dtype=bool)
    for row in np.flatnonzero(hashes[1:] == hashes[:-1]) + 1:
        first, second = table.slice(row - 1, 1).to_pylist()[0], table.slice(row, 1).to_pylist()[0]
        if first["image_id"] != second["image_id"]:
            continue
        sizes = [(one["width"], one["height"]) for one in (first, second)]
        if sizes[0] != sizes[1] or not named_alike(first["uri"], second["uri"]):
            raise UserError(
                f"Two images have the id {first['image_id']!r}: {first['uri']} and {second['uri']}; precompute one of "
                "them with source.collection set to a name such as nocaps (and name it in the sets about it), or keep "
                "them in different folders."
            )
        kept[row] = False
    return np.flatnonzero(kept)


class ImageIndex:
    """The index, mapped into memory where it is a local file.

    Args:
        folder: the instructions step's folder.
    """

    def __init__(self, folder: str) -> None:
        uri = storage.join(folder, INDEX)
        self._table = pa.ipc.open_file(_source(uri)).read_all()
        self._hashes = self._table["hash"].chunk(0).to_numpy() if len(self._table) else np.zeros(0, np.uint64)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def find(self, ids: Sequence[str]) -> list[Picture | None]:
        """What is known of images, None of one that was not precomputed."""
        wanted = np.fromiter(map(hash64, ids), np.uint64, len(ids))
        rows = np.searchsorted(self._hashes, wanted)
        at = [self._row(int(row), int(key), image_id) for row, key, image_id in zip(rows, wanted, ids, strict=True)]
        names = [field.name for field in dataclasses.fields(Picture)]
        found = self._table.select(names).take(pa.array(at, pa.int64())).to_pylist()
        return [None if row is None else Picture(**values) for row, values in zip(at, found, strict=True)]

    def digests(self, ids: Sequence[str]) -> set[bytes]:
        """Return the known digests of images."""
        return {picture.digest for picture in self.find(ids) if picture is not None and picture.digest is not None}

    def _row(self, row: int, key: int, image_id: str) -> int | None:
        while row < len(self._hashes) and int(self._hashes[row]) == key:
            if self._table["image_id"][row].as_py() == image_id:
                return row
            row += 1
        return None


@functools.lru_cache(maxsize=1)
def open_index(folder: str) -> ImageIndex:
    """Return the index of a step's folder, opened once a process."""
    return ImageIndex(folder)


def _source(uri: str) -> Any:
    if storage.is_remote(uri):
        return pa.BufferReader(storage.read_bytes(uri))
    return pa.memory_map(storage.absolute(uri))
