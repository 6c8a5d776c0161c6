"""Predictions as files: those that a run wrote, and those that a user brings."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipelines.core.errors import UserError
from pipelines.core.parquet import read_parquet
from pipelines.core.tables import INSTRUCTIONS, PREDICTIONS, require_unicode, to_table
from pipelines.scoring.prediction_files import prediction_row

_NEEDED = ("prediction",)
_WRITTEN_AS = {"references": "list<string>", "box": "list<float> (x1, y1, x2, y2 in [0, 1])"}


def load_predictions(uri: str, task: str | None) -> pa.Table:
    """Predictions as a `tables.PREDICTIONS` table; a user's file may lack every column but `prediction`.

    Args:
        uri: a Parquet file or a folder of them.
        task: what a row without a task belongs to; None where it cannot be told.

    Raises:
        UserError: a column is missing that cannot be filled in, has the wrong type or no Unicode, or ids repeat.
    """
    found = read_parquet(uri, "predictions")
    require_unicode(found, uri)
    if lacking := [name for name in _NEEDED if name not in found.column_names]:
        raise UserError(
            f"{uri} has no column {lacking[0]!r}; a predictions file has {PREDICTIONS.names}, of which only "
            f"`prediction` must be there. It has {found.column_names}."
        )
    if "task" not in found.column_names and task is None:
        raise UserError(f"{uri} has no column 'task'; add it, or name one benchmark with --benchmark.")
    numbered = [str(row) for row in range(found.num_rows)]
    defaults: Mapping[str, Any] = {"sample_id": numbered, "image_id": [""] * found.num_rows, "task": task}
    columns = [_column(found, name, defaults, uri) for name in PREDICTIONS.names]
    table = pa.Table.from_arrays(columns, schema=PREDICTIONS)
    for name in ("sample_id", "task", "prediction"):
        if nulls := table.column(name).null_count:
            raise UserError(f"{uri}: column {name!r} is null in {nulls} rows; write an empty answer as ''.")
    _require_unique(table, uri)
    return table


def _column(found: pa.Table, name: str, defaults: Mapping[str, Any], uri: str) -> pa.ChunkedArray | pa.Array:
    """One column of the schema, cast, or filled in where the file does not have it."""
    target = PREDICTIONS.field(name).type
    if name not in found.column_names:
        value = defaults.get(name)
        if isinstance(value, list):
            return pa.array(value, target)
        return pa.array([value] * found.num_rows, target)
    column = found.column(name)
    if name == "references" and pa.types.is_string(column.type):
        return pa.array([None if text is None else [text] for text in column.to_pylist()], target)
    is_id = name in ("sample_id", "image_id") and pa.types.is_integer(column.type)
    alike = pa.types.is_string(target) == pa.types.is_string(column.type) or pa.types.is_null(column.type) or is_id
    try:
        if alike or pa.types.is_large_string(column.type) or pa.types.is_dictionary(column.type):
            return column.cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass  # said below, in the same words as for the types that are not tried
    wanted = _WRITTEN_AS.get(name, str(target))
    raise UserError(f"{uri}: column {name!r} has the type {column.type}, but must be {wanted}.")


def _require_unique(table: pa.Table, uri: str) -> None:
    ids = table.select(["task", "sample_id"])
    counts = ids.group_by(["task", "sample_id"]).aggregate([([], "count_all")])
    if counts.num_rows != ids.num_rows:
        repeated = next(row for row in counts.to_pylist() if row["count_all"] > 1)
        raise UserError(
            f"{uri}: sample_id {repeated['sample_id']!r} of task {repeated['task']!r} is there "
            f"{repeated['count_all']} times; every sample has one prediction."
        )


def join_references(predictions: pa.Table, instructions: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """Return the instructions' rows with their predictions; the answers become the references.

    A sample without a prediction counts as answered with nothing, which is wrong; it is counted. So are predictions of
    samples that are not there, which are left out.

    Raises:
        UserError: no prediction belongs to any instruction.
    """
    given = {(row["task"], row["sample_id"]): row for row in predictions.to_pylist()}
    rows = []
    for row in instructions.to_pylist():
        prediction = given.pop((row["task"], row["sample_id"]), None)
        rows.append(prediction_row(row, prediction["prediction"] if prediction else None, None))
        if prediction:
            rows[-1]["model_version"] = prediction["model_version"]
    missing = sum(row["prediction"] is None for row in rows)
    if missing == len(rows):
        raise UserError("No prediction's sample_id is among the instructions; the two are of different samples.")
    for row in rows:
        row["prediction"] = row["prediction"] or ""
    return to_table(rows, PREDICTIONS), {"missing_predictions": missing, "unknown_predictions": len(given)}


def load_instructions(uri: str) -> pa.Table:
    """Return the `instructions` table of a folder.

    Raises:
        UserError: it is not such a table, or a sample_id repeats.
    """
    table = read_parquet(uri, "instructions")
    if missing := [name for name in INSTRUCTIONS.names if name not in table.column_names]:
        raise UserError(f"{uri} is not an instructions folder: it lacks the columns {missing}.")
    table = table.select(INSTRUCTIONS.names).cast(INSTRUCTIONS)
    if not table.num_rows:
        raise UserError(f"{uri} has no rows to evaluate.")
    _require_unique(table, uri)
    return table
