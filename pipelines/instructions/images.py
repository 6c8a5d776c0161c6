"""The index of the precomputed images: URI, size, digest of the bytes, and length of the tags of each.

Ray Data builds it, with one task per file of the tagged table. Then it is sorted by a hash of the ids into one Arrow
file. Workers map this file into memory, so that millions of images cost no Python objects and no copy per worker.
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
    """A precomputed image, as the index has it.

    Attributes:
        uri: its file.
        width: in pixels; None where the tagged table has none.
        height: in pixels; None likewise.
        digest: SHA-256 of the file's bytes; None where digests are not needed, or the file cannot be read.
        tag_tokens: tokens of the tags that a prompt lists; None without a tokenizer.
    """

    uri: str
    width: int | None
    height: int | None
    digest: bytes | None = None
    tag_tokens: int | None = None


def is_another(picture: Picture, file_name: str | None) -> bool:
    """Return whether the name of a picture's file shows that it is another picture with the same id.

    Args:
        picture: the precomputed picture of an id.
        file_name: the name that the annotations give for this id; None: they give none.
    """
    return file_name is not None and not named_alike(picture.uri, file_name)


def shard_set(folder: str) -> ShardSet:
    """Return the pieces of the index in the folder of a step: one per file of the tagged table."""
    return ShardSet(folder, "source/images", "images@")


def tagged_files(tagged: str) -> list[str]:
    """Return the Parquet files of a tagged table, sorted.

    Args:
        tagged: a Parquet file, the folder of a precompute step, or a folder of several such steps.

    Raises:
        UserError: there is no Parquet file, or one lacks a column.
    """
    root = storage.absolute(tagged)
    files = table_files(root)
    if not files or not storage.exists(files[0]):
        raise UserError(f"{tagged} has no Parquet files; give the `path` of a precompute step.")
    with ThreadPoolExecutor(16) as pool:
        lacking = pool.map(_lacking, files)
        for name, missing in zip(files, lacking, strict=True):
            if missing:
                raise UserError(f"{name} lacks {missing}; give a tagged table, the `path` of a precompute step.")
    return files


def _lacking(file: str) -> list[str]:
    """Return the required columns that a Parquet file lacks."""
    return sorted(set(_COLUMNS) - set(read_schema(file).names))


class IndexImages:
    """Builds the piece of the index for one file of the tagged table, and a proof with the statistics of its tags.

    Args:
        folder: the folder of the step.
        files: the files of the tagged table.
        digests: whether to read every image and compute its digest.
        tokenizer: folder of a tokenizer, or empty.
        rule: the tags that a prompt lists.
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
        texts = [", ".join(usual_tags(image_tags, self._rule)) for image_tags in tags]
        return pa.array(Tokens(self._tokenizer).lengths(texts), pa.int32())


def _digest(uri: str) -> bytes | None:
    try:
        return hashlib.sha256(read_image_bytes(uri)).digest()
    except BadImage:  # the image was readable in precompute; that it no longer is, is counted
        return None


def join_index(folder: str, count: int) -> int:
    """Sort the pieces into one Arrow file and return its number of images.

    Args:
        folder: the folder of the step.
        count: the number of pieces.

    Raises:
        UserError: two different images have the same id.
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
    """Return the rows to keep: of an image that is in several precompute steps, the first.

    Raises:
        UserError: two rows with the same id are of different images.
    """
    kept = np.ones(len(hashes), dtype=bool)
    for position in np.flatnonzero(hashes[1:] == hashes[:-1]) + 1:
        first, second = table.slice(position - 1, 2).to_pylist()
        if first["image_id"] != second["image_id"]:
            continue  # two ids with the same hash
        sizes = [(row["width"], row["height"]) for row in (first, second)]
        if sizes[0] != sizes[1] or not named_alike(first["uri"], second["uri"]):
            raise UserError(
                f"Two images have the id {first['image_id']!r}: {first['uri']} and {second['uri']}; precompute one of "
                "them with source.collection set to a name such as nocaps (and name it in the sets about it), or keep "
                "them in different folders."
            )
        kept[position] = False
    return np.flatnonzero(kept)


class ImageIndex:
    """The index, mapped into memory where it is a local file, else read.

    Args:
        folder: the folder of the step.
    """

    def __init__(self, folder: str) -> None:
        uri = storage.join(folder, INDEX)
        self._table = pa.ipc.open_file(_source(uri)).read_all()
        self._hashes = self._table["hash"].chunk(0).to_numpy() if len(self._table) else np.zeros(0, np.uint64)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def find(self, ids: Sequence[str]) -> list[Picture | None]:
        """Return the pictures of n ids; None for an image that was not precomputed."""
        keys = np.fromiter(map(hash64, ids), np.uint64, len(ids))
        starts = np.searchsorted(self._hashes, keys)
        rows = [self._row(int(start), int(key), name) for start, key, name in zip(starts, keys, ids, strict=True)]
        names = [field.name for field in dataclasses.fields(Picture)]
        pictures = self._table.select(names).take(pa.array(rows, pa.int64())).to_pylist()
        return [None if row is None else Picture(**values) for row, values in zip(rows, pictures, strict=True)]

    def digests(self, ids: Sequence[str]) -> set[bytes]:
        """Return the digests of the images that have one."""
        return {picture.digest for picture in self.find(ids) if picture is not None and picture.digest is not None}

    def _row(self, row: int, key: int, image_id: str) -> int | None:
        """Return the row of an id, or None. Two ids may have the same hash, so the ids are compared, too.

        Args:
            row: the first row with the hash of the id.
            key: the hash.
            image_id: the id.
        """
        while row < len(self._hashes) and int(self._hashes[row]) == key:
            if self._table["image_id"][row].as_py() == image_id:
                return row
            row += 1
        return None


@functools.lru_cache(maxsize=1)
def open_index(folder: str) -> ImageIndex:
    """Return the index in the folder of a step; a process opens it once."""
    return ImageIndex(folder)


def _source(uri: str) -> Any:
    if storage.is_remote(uri):
        return pa.BufferReader(storage.read_bytes(uri))
    return pa.memory_map(storage.absolute(uri))
