"""Shards of an evaluation: their input, the actor class that answers them, and what they left.

They are a set of `pipelines.core.shards` named `part` with the result `predictions`, and run on the same machinery as
precompute. Two things differ, since folders of killed runs depend on them: the input is in `input/` (slices of two
tables, so that there are no bad records and no index), and there is no `done/`: the predictions file is written last
and is the proof that its shard is complete.

    input/shard-00000000.parquet         `shard_rows` instructions with their images' `uri` and `tags`
    input_images/shard-00000000.parquet  the images' bytes where the tagged table embeds them; deleted after the run
    quarantine/part-00000000.parquet     rows that the model could not answer; no file if it could answer all
    predictions/part-00000000.parquet    the answers
"""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.parquet import read_file, read_parquet, write_file
from pipelines.core.shards import ShardSet
from pipelines.core.tables import IMAGE_BYTES, INSTRUCTIONS, PREDICTIONS, QUARANTINE, TAG, to_table
from pipelines.evaluation.tag_noise import TagNoise, noisy_column
from pipelines.inference.answerer import UNANSWERABLE, Answerer, AnswererSettings
from pipelines.scoring.prediction_files import decoding_metadata
from pipelines.sources.embedded import EmbeddedImages, open_embedded

IMAGES = "input_images"
"""Folder of the encoded images of unfinished shards."""
_INPUT = pa.schema([*INSTRUCTIONS, pa.field("uri", pa.string(), nullable=False), pa.field("tags", pa.list_(TAG))])


def shard_set(folder: str) -> ShardSet:
    """Return the names of the shards' results in a step's folder."""
    return ShardSet(folder, "predictions")


def input_file(folder: str, shard: int) -> str:
    """Return the URI of a shard's rows: instructions with their images' `uri` and `tags`."""
    return storage.join(folder, f"input/shard-{shard:08d}.parquet")


def images_file(folder: str, shard: int) -> str:
    """Return the URI of a shard's images (`image_id`, `image_bytes`), written where the tagged table embeds them."""
    return storage.join(folder, f"{IMAGES}/shard-{shard:08d}.parquet")


def missing_shards(folder: str, shards: int) -> list[int]:
    """Return the numbers of the shards without predictions."""
    files = shard_set(folder)
    return [shard for shard in range(shards) if not storage.exists(files.result_file(shard))]


def write_input(
    folder: str, missing: Iterable[int], instructions: pa.Table, tagged: str, shard_rows: int, noise: TagNoise
) -> None:
    """Write the input of the missing shards: each instruction with the URI and the tags of its image.

    Args:
        folder: the step's folder.
        missing: numbers of the shards.
        instructions: all questions, of `tables.INSTRUCTIONS`.
        tagged: the folder of the tagged table.
        shard_rows: rows per shard.
        noise: errors that are added to the tags.

    Raises:
        UserError: the tagged table lacks a column or an image.
    """
    images = read_parquet(tagged, "tagged", ["image_id", "uri", "tags"])
    _require_columns(images, tagged, ("image_id", "uri"))
    rows = pc.index_in(instructions["image_id"], value_set=images["image_id"].combine_chunks()).combine_chunks()
    if rows.null_count:
        absent = instructions["image_id"].filter(pc.is_null(rows))
        raise UserError(
            f"{rows.null_count} instructions are about images that {tagged} lacks (first: {absent[0].as_py()!r})."
        )
    tags = pa.chunked_array([pa.nulls(images.num_rows, pa.list_(TAG))])
    if "tags" in images.column_names:
        tags = noisy_column(images["image_id"], images["tags"].cast(pa.list_(TAG)), noise)
    table = pa.Table.from_arrays([*instructions.columns, images["uri"].take(rows), tags.take(rows)], schema=_INPUT)
    embedded = open_embedded(tagged)
    for shard in missing:
        part = table.slice(shard * shard_rows, shard_rows)
        if embedded is not None:
            write_file(images_file(folder, shard), _image_bytes(embedded, part["image_id"]))
        write_file(input_file(folder, shard), part)


def _image_bytes(embedded: EmbeddedImages, image_ids: pa.ChunkedArray) -> pa.Table:
    """Return the encoded bytes of a shard's images, each image once."""
    ids = pa.chunked_array([image_ids.unique()])
    contents = [embedded.content(int(row)) for row in embedded.rows(ids)]
    return pa.table({"image_id": ids, IMAGE_BYTES.name: pa.array(contents, pa.large_binary())})


def image_sizes(tagged: str) -> dict[str, tuple[int, int]]:
    """Return width and height of the images of a tagged table by their ids; images without both are left out.

    Raises:
        UserError: the table lacks a column.
    """
    columns = ["image_id", "width", "height"]
    images = read_parquet(tagged, "tagged", columns)
    _require_columns(images, tagged, columns)
    rows = zip(*(images[name].to_pylist() for name in columns), strict=True)
    return {image_id: (width, height) for image_id, width, height in rows if width and height}


def _require_columns(images: pa.Table, tagged: str, columns: Iterable[str]) -> None:
    if absent := set(columns) - set(images.column_names):
        raise UserError(f"{tagged} is not a tagged folder: it lacks the columns {sorted(absent)}.")


class AnswerShard:
    """A Ray Data actor class that loads the model once and then answers shard after shard.

    Args:
        folder: the step's folder.
        settings: how the model answers.
    """

    def __init__(self, folder: str, settings: AnswererSettings) -> None:
        self.folder = folder
        self.files = shard_set(folder)
        self.answerer = Answerer(settings)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer the shards of a column `shard` and return their proofs; a repeated shard gives the same files."""
        proofs = [{"shard": shard, "rows": self.answer(shard)} for shard in batch["shard"].to_pylist()]
        return pa.table({"proof": [json.dumps(proof) for proof in proofs]})

    def answer(self, shard: int) -> int:
        """Answer a shard, write its files and return its number of rows."""
        predictions, bad = self.answerer.answer(self._read(shard))
        self._write(shard, predictions, bad)
        return len(predictions)

    def _read(self, shard: int) -> list[dict[str, Any]]:
        """Return a shard's rows, with the encoded bytes of those images that the tagged table embeds."""
        rows, path = read_file(input_file(self.folder, shard)).to_pylist(), images_file(self.folder, shard)
        if storage.exists(path):
            contents = {row["image_id"]: row[IMAGE_BYTES.name] for row in read_file(path).to_pylist()}
            for row in rows:
                row[IMAGE_BYTES.name] = contents.get(row["image_id"])
        return rows

    def _write(self, shard: int, predictions: list[dict[str, Any]], bad: list[dict[str, Any]]) -> None:
        """Write a shard's quarantine, or delete that of an earlier attempt, then its predictions.

        The predictions prove that the shard is complete. Those of an earlier attempt are deleted first, so that a
        process killed at any point leaves no predictions together with the quarantine of another attempt.
        """
        target = self.files.result_file(shard)
        storage.delete_file(target)
        self.files.write_quarantine(shard, to_table(bad, QUARANTINE))
        metadata = decoding_metadata(self.answerer.settings.decoded_with)
        write_file(target, to_table(predictions, PREDICTIONS).replace_schema_metadata(metadata))


def read_predictions(folder: str, shards: int) -> pa.Table:
    """Return the predictions of all shards, in the order of the instructions."""
    files = shard_set(folder)
    return pa.concat_tables([read_file(files.result_file(shard)) for shard in range(shards)])


def prediction_entries(folder: str, shards: int) -> list[dict[str, Any]]:
    """Return the predictions' files as manifests list files."""
    files = shard_set(folder)
    return [
        {"path": files.result_name(shard), "sha256": storage.sha256(files.result_file(shard))}
        for shard in range(shards)
    ]


def count_quarantined(folder: str, shards: int) -> dict[str, int]:
    """Return the numbers of rows without an answer: those of unreadable images, and unanswerable questions."""
    files = shard_set(folder)
    reasons: Counter[str] = Counter()
    for shard in range(shards):
        path = files.quarantine_file(shard)
        if storage.exists(path):
            reasons.update(read_file(path)["reason"].to_pylist())
    unanswerable = reasons.pop(UNANSWERABLE, 0)
    return {"unreadable_images": reasons.total(), "unanswerable_questions": unanswerable}
