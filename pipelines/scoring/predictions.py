"""Tables of predictions: those that a run wrote, and those that a user provides."""

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
    """Load predictions as a `tables.PREDICTIONS` table; a user's file needs only the column `prediction`.

    Args:
        uri: a Parquet file or a folder of them.
        task: the task of rows without a task; None where it is unknown.

    Raises:
        UserError: a column is missing and has no default, has the wrong type or invalid Unicode, or an id repeats.
    """
    contents = read_parquet(uri, "predictions")
    require_unicode(contents, uri)
    if lacking := [name for name in _NEEDED if name not in contents.column_names]:
        raise UserError(
            f"{uri} has no column {lacking[0]!r}; a predictions file has {PREDICTIONS.names}, of which only "
            f"`prediction` is required. It has {contents.column_names}."
        )
    if "task" not in contents.column_names and task is None:
        raise UserError(f"{uri} has no column 'task'; add it, or name one benchmark with --benchmark.")
    numbered = [str(row) for row in range(contents.num_rows)]
    defaults: Mapping[str, Any] = {"sample_id": numbered, "image_id": [""] * contents.num_rows, "task": task}
    columns = [_column(contents, name, defaults, uri) for name in PREDICTIONS.names]
    table = pa.Table.from_arrays(columns, schema=PREDICTIONS)
    for name in ("sample_id", "task", "prediction"):
        if nulls := table.column(name).null_count:
            raise UserError(f"{uri}: column {name!r} is null in {nulls} rows; write an empty answer as ''.")
    _require_unique(table, uri)
    return table


def _column(contents: pa.Table, name: str, defaults: Mapping[str, Any], uri: str) -> pa.ChunkedArray | pa.Array:
    """Return a column of the schema: cast, or filled with its default where the file lacks it."""
    target = PREDICTIONS.field(name).type
    if name not in contents.column_names:
        value = defaults.get(name)
        if isinstance(value, list):
            return pa.array(value, target)
        return pa.array([value] * contents.num_rows, target)
    column = contents.column(name)
    if name == "references" and pa.types.is_string(column.type):
        return pa.array([None if text is None else [text] for text in column.to_pylist()], target)
    is_id = name in ("sample_id", "image_id") and pa.types.is_integer(column.type)
    castable = pa.types.is_string(target) == pa.types.is_string(column.type) or pa.types.is_null(column.type) or is_id
    try:
        if castable or pa.types.is_large_string(column.type) or pa.types.is_dictionary(column.type):
            return column.cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass  # the error below is the same as for types that are not cast
    expected = _WRITTEN_AS.get(name, str(target))
    raise UserError(f"{uri}: column {name!r} has the type {column.type}, but must be {expected}.")


def _require_unique(table: pa.Table, uri: str) -> None:
    ids = table.select(["task", "sample_id"])
    counts = ids.group_by(["task", "sample_id"]).aggregate([([], "count_all")])
    if counts.num_rows != ids.num_rows:
        repeated = next(row for row in counts.to_pylist() if row["count_all"] > 1)
        raise UserError(
            f"{uri}: sample_id {repeated['sample_id']!r} of task {repeated['task']!r} occurs "
            f"{repeated['count_all']} times; keep one row per sample."
        )


def join_references(predictions: pa.Table, instructions: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """Return the instructions' rows with their predictions; the true answers become the references.

    A sample without a prediction gets an empty prediction, which is wrong, and is counted. Predictions of samples that
    are not among the instructions are left out and counted.

    Returns:
        The table (of `tables.PREDICTIONS`), and the two counts by name.

    Raises:
        UserError: no prediction belongs to any instruction.
    """
    by_sample = {(row["task"], row["sample_id"]): row for row in predictions.to_pylist()}
    rows = []
    for row in instructions.to_pylist():
        prediction = by_sample.pop((row["task"], row["sample_id"]), None)
        rows.append(prediction_row(row, prediction["prediction"] if prediction else None, None))
        if prediction:
            rows[-1]["model_version"] = prediction["model_version"]
    missing = sum(row["prediction"] is None for row in rows)
    if missing == len(rows):
        raise UserError(
            "No prediction's sample_id is among the instructions: the two are of different samples. Give the "
            "instructions that the predictions answer."
        )
    for row in rows:
        row["prediction"] = row["prediction"] or ""
    return to_table(rows, PREDICTIONS), {"missing_predictions": missing, "unknown_predictions": len(by_sample)}


def load_instructions(uri: str) -> pa.Table:
    """Return the `instructions` table of a folder.

    Raises:
        UserError: it is not such a table, has no rows, or a sample_id repeats.
    """
    table = read_parquet(uri, "instructions")
    if missing := [name for name in INSTRUCTIONS.names if name not in table.column_names]:
        raise UserError(f"{uri} is not an instructions folder: it lacks the columns {missing}.")
    table = table.select(INSTRUCTIONS.names).cast(INSTRUCTIONS)
    if not table.num_rows:
        raise UserError(f"{uri} has no rows to evaluate.")
    _require_unique(table, uri)
    return table
