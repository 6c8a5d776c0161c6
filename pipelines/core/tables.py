"""Schemas of the tables that steps exchange. Each step casts what it reads and writes to these schemas.

Conventions: ids are strings. `box` is `x1, y1, x2, y2`, normalized to [0, 1] by the width and height of the unpadded
image. `uri` is a local path, `s3://…` or `gs://…`. Scores are the tagger's probabilities above a floor; thresholds
are applied when tags are read, and a tagger's thresholds are stored with its table (`pipelines.core.tag_rules`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from pipelines.core.errors import UserError

TAG = pa.struct([pa.field("tag", pa.string(), nullable=False), pa.field("score", pa.float32(), nullable=False)])

IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("split", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("captions", pa.list_(pa.string())),
    ]
)

TAGGED = pa.schema(
    [
        *IMAGES,
        pa.field("tags", pa.list_(TAG)),
        pa.field("caption", pa.string()),
        pa.field("caption_index", pa.int32()),
        pa.field("centroid_similarity", pa.float32()),
    ]
)

# The encoded image file: an additional column of `TAGGED` that `precompute --embed_bytes` writes.
IMAGE_BYTES = pa.field("image_bytes", pa.binary())

QUARANTINE = pa.schema(
    [
        pa.field("image_id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
    ]
)

INSTRUCTIONS = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("level", pa.string(), nullable=False),
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("answers", pa.list_(pa.string())),
        pa.field("box", pa.list_(pa.float32())),
    ]
)

# `box` is the true box, so that metrics need no other file. The predicted box is parsed from `prediction`.
PREDICTIONS = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("prediction", pa.string(), nullable=False),
        pa.field("box", pa.list_(pa.float32())),
        pa.field("references", pa.list_(pa.string())),
        pa.field("model_version", pa.string()),
    ]
)

# A sample's contribution to the primary metric of its group. If the metric is not the mean of `score`, it is computed
# from the sums of `outcomes` (F1 of POPE: true and false positives, true and false negatives).
SCORES = pa.schema(
    [
        pa.field("group", pa.string(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("outcomes", pa.list_(pa.float64())),
    ]
)

LEVELS = ("image", "region")


def require_unicode(table: pa.Table, uri: str) -> None:
    """Refuse a table of a user's file with text that is not UTF-8. Parquet libraries do not check this.

    Raises:
        UserError: a text is not UTF-8; the message has its column and row.
    """
    for name in table.column_names:
        begin = 0
        for chunk in table.column(name).chunks:
            try:
                chunk.validate(full=True)
            except pa.ArrowInvalid as error:
                row = begin + next(at for at in range(len(chunk)) if not _is_valid(chunk.slice(at, 1)))
                raise UserError(
                    f"{uri}: row {row} of column {name!r} is damaged, or no UTF-8 text ({error})."
                ) from error
            begin += len(chunk)


def _is_valid(array: pa.Array) -> bool:
    try:
        pa.concat_arrays([array]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def to_table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows (mappings by column name) as a table of `schema`; missing columns are null.

    Raises:
        ValueError: a row has a column that is not in the schema, or a non-nullable column is null.
    """
    rows = list(rows)
    names = set(schema.names)
    for row in rows:
        if unknown := set(row) - names:
            raise ValueError(f"Columns {sorted(unknown)} are not part of the table; it has {schema.names}.")
    table = pa.Table.from_pylist(rows, schema=schema)
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise ValueError(
                f"Column {field.name!r} must not be null, but is in {table.column(field.name).null_count} rows."
            )
    return table
