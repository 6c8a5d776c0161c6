"""The work on one shard, stage by stage: Arrow tables in and out, without Ray.

ReadShard  the number of a shard → its images
Caption    adds caption, caption_index, centroid_similarity
Decode     adds pixels, or the reason why there are none; fills in width and height
Tag        adds tags; drops pixels
Commit     writes the files; returns one row, the proof that the shard is done
"""

import json
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from models.tags import tags_to_rows
from pipelines.core import storage, tables
from pipelines.core.parquet import write_parquet
from pipelines.core.runtime import worker_threads
from pipelines.core.shards import ShardIndex
from pipelines.precompute.captioner import Captioner
from pipelines.precompute.config import CaptionerConfig, Precision
from pipelines.precompute.shards import shard_set
from pipelines.precompute.taggers import Tagger
from pipelines.sources.images import BadImage, check_size, decode_with_size, read_image_bytes

_PARALLEL_READS = 16
_PICK = {"caption": "caption", "caption_index": "index", "centroid_similarity": "similarity"}
"""Columns of the result, and the field of `Pick` that each holds."""
_TAGS = tables.TAGGED.field("tags")


def device_of(gpus: float) -> str:
    """Return the device of a model in an actor that has this share of a GPU."""
    return "cuda" if gpus else "cpu"


class ReadShard:
    """Reads the images of a shard and adds the column `shard`.

    Args:
        folder: the folder of the step.
    """

    def __init__(self, folder: str) -> None:
        self.shards = shard_set(folder)

    def __call__(self, batch: pa.Table) -> pa.Table:
        (shard,) = batch["shard"].to_pylist()
        table = self.shards.read(shard, tables.IMAGES)
        return table.append_column("shard", pa.array([shard] * table.num_rows, pa.int64()))


class Caption:
    """Picks the centroid caption of every image, in an actor that holds the sentence encoder.

    It is the first stage of a run with captions, so it reads the shard itself.

    Args:
        folder: the folder of the step.
        config: the sentence encoder.
        gpus: share of a GPU that the actor has.
        threads: CPU threads of the model.
    """

    def __init__(self, folder: str, config: CaptionerConfig, gpus: float, threads: int) -> None:
        import torch

        torch.set_num_threads(worker_threads(threads))
        self.read = ReadShard(folder)
        self.captioner = Captioner(config.path, config.batch_size, device_of(gpus))

    def __call__(self, batch: pa.Table) -> pa.Table:
        table = self.read(batch)
        picks = self.captioner(table["captions"].to_pylist())
        for name, attribute in _PICK.items():
            values = [None if pick is None else getattr(pick, attribute) for pick in picks]
            table = table.append_column(name, pa.array(values, tables.TAGGED.field(name).type))
        return table


class Decode:
    """Reads and decodes every image; a bad image gets a reason instead of pixels.

    Args:
        image_size: side of the tagger's square in pixels; None: decode to check the file, and keep no pixels.
        max_pixels: see `pipelines.sources.images`.
        jpeg_draft: decode large JPEGs at a fraction of their size.
        embed_bytes: keep the encoded bytes.
    """

    def __init__(self, image_size: int | None, max_pixels: int, jpeg_draft: bool, embed_bytes: bool) -> None:
        self.image_size = image_size
        self.max_pixels = max_pixels
        self.embed_bytes = embed_bytes
        # Without a tagger that needs pixels the smallest draft is enough to check the file.
        self.draft = None if not jpeg_draft else 1 if image_size is None else 2 * image_size

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.select(["uri", "width", "height"]).to_pylist()
        if rows and storage.is_remote(rows[0]["uri"]):
            # Reading from an object store is mostly waiting; threads wait in parallel.
            with ThreadPoolExecutor(_PARALLEL_READS) as pool:
                decoded = list(pool.map(self.decode, rows))
        else:
            decoded = [self.decode(row) for row in rows]
        for name, kind in (("width", pa.int32()), ("height", pa.int32())):
            column = pa.array([row[name] for row in decoded], kind)
            table = table.set_column(table.schema.get_field_index(name), name, column)
        columns = {"pixels": pa.large_binary(), "reason": pa.string(), "detail": pa.string()}
        if self.embed_bytes:
            columns["image_bytes"] = pa.large_binary()
        for name, kind in columns.items():
            table = table.append_column(name, pa.array([row.get(name) for row in decoded], kind))
        return table

    def decode(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the new columns of one image: width and height with pixels and bytes, or with a reason and its detail.

        Args:
            row: `uri`, and the `width` and `height` of the annotations or None.
        """
        try:
            content = read_image_bytes(row["uri"])
            image, size = decode_with_size(content, max_pixels=self.max_pixels, draft=self.draft)
            annotated = (row["width"], row["height"])
            if None not in annotated:
                check_size(size, annotated)
                size = annotated
        except BadImage as error:
            return {"width": row["width"], "height": row["height"], "reason": error.reason, "detail": error.detail}
        columns: dict[str, Any] = {"width": size[0], "height": size[1]}
        if self.image_size is not None:
            side = (self.image_size, self.image_size)
            columns["pixels"] = image.resize(side, Image.Resampling.BILINEAR).tobytes()
        if self.embed_bytes:
            columns["image_bytes"] = content
        return columns


class Tag:
    """Tags the images that could be decoded, in an actor that holds the model.

    Args:
        tagger: the tagger, prepared by the driver.
        gpus: share of a GPU that the actor has.
        threads: CPU threads of the model.
        precision: its arithmetic, never `auto`.
    """

    def __init__(self, tagger: Tagger, gpus: float, threads: int, precision: Precision) -> None:
        self.tagger = tagger
        tagger.setup(device_of(gpus), threads, precision)

    def __call__(self, table: pa.Table) -> pa.Table:
        good = np.flatnonzero(pc.is_null(table["reason"]).to_numpy(zero_copy_only=False))
        column: list[Any] = [None] * table.num_rows
        if len(good):
            usable = table.take(good)
            tags_by_image = self.tagger.tag(usable["image_id"].to_pylist(), self._pixels(usable))
            for row, tags in zip(good.tolist(), tags_by_image, strict=True):
                column[row] = tags_to_rows(tags)
        return table.drop_columns(["pixels"]).append_column(_TAGS, pa.array(column, _TAGS.type))

    def _pixels(self, usable: pa.Table) -> np.ndarray | None:
        """Return the pixels of the usable rows, (B, side, side, 3) uint8 RGB."""
        side = self.tagger.image_size
        if side is None:
            return None
        raw = [np.frombuffer(cell.as_buffer(), np.uint8) for cell in usable["pixels"]]
        return np.stack(raw).reshape(len(raw), side, side, 3)


class Commit:
    """Writes the files of a shard and its proof.

    Files are named by the shard's number, so that writing a shard twice changes nothing.

    Args:
        folder: the folder of the step.
        index: the cut source, which has the number of images of each shard.
        metadata: written into every result file, such as the tagger's name and digest.
    """

    def __init__(self, folder: str, index: ShardIndex, metadata: Mapping[str, str]) -> None:
        self.shards = shard_set(folder)
        self.index = index
        self.metadata = metadata

    def __call__(self, table: pa.Table) -> pa.Table:
        shard = self._shard_number(table)
        is_good = pc.is_null(table["reason"])
        good, bad = table.filter(is_good), table.filter(pc.invert(is_good))
        quarantine = self.shards.write_quarantine(shard, _quarantine(bad))
        files = [self._write_tagged(shard, good), *quarantine]
        proof = {
            "shard": shard,
            "rows": good.num_rows,
            "quarantined": dict(sorted(Counter(bad["reason"].to_pylist()).items())),
            "without_tags": int(pc.sum(pc.equal(pc.list_value_length(good["tags"]), 0)).as_py() or 0),
            "files": files,
        }
        # The proof is written last: a process killed before this line leaves the shard undone.
        storage.write_json(self.shards.done_file(shard), proof)
        return pa.table({"proof": [json.dumps(proof)]})

    def _shard_number(self, table: pa.Table) -> int:
        """Return the number of the shard; fail on a block that is not exactly one whole shard.

        Such a block would mean lost or doubled rows.
        """
        numbers = pc.unique(table["shard"]).to_pylist()
        assert len(numbers) == 1, f"a block holds the shards {numbers}"
        shard = int(numbers[0])
        assert table.num_rows == self.index.rows_of(shard), f"shard {shard} arrived with {table.num_rows} rows"
        return shard

    def _write_tagged(self, shard: int, good: pa.Table) -> dict[str, Any]:
        if "caption" not in good.column_names:
            for name in _PICK:
                good = good.append_column(name, pa.nulls(good.num_rows, tables.TAGGED.field(name).type))
        embedded = [tables.IMAGE_BYTES] if "image_bytes" in good.column_names else []
        schema = pa.schema([*tables.TAGGED, *embedded], metadata=dict(self.metadata))
        table = good.select(schema.names).cast(schema).combine_chunks()
        return write_parquet(self.shards.folder, self.shards.result_name(shard), table)


def _quarantine(bad: pa.Table) -> pa.Table:
    """Return the images that could not be read, as rows of `tables.QUARANTINE`."""
    bad = bad.append_column("stage", pa.array(["image"] * bad.num_rows, pa.string()))
    return bad.select(tables.QUARANTINE.names).cast(tables.QUARANTINE).combine_chunks()
