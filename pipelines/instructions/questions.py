"""Question files cut into shards: the table of a set's questions, and the list of its evaluation images."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from pipelines.core import storage
from pipelines.core.parquet import write_parquet
from pipelines.core.shards import ShardIndex, ShardSet
from pipelines.instructions.config import InstructionSet
from pipelines.sources import question_source, read_questions
from pipelines.sources.grouping import RowsByKey
from pipelines.sources.records import BadRecord, QuestionRecord

_BOX = pa.list_(pa.float64())
QUESTIONS = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("level", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("answers", pa.list_(pa.string())),
        pa.field("box", _BOX),
        pa.field("choices", pa.list_(pa.string())),
        pa.field("correct_choice", pa.int32()),
        pa.field("region_id", pa.string()),
        pa.field("difficult", pa.bool_()),
        pa.field("split", pa.string()),
        pa.field("same_as", pa.string()),
        pa.field("phrases", pa.list_(pa.struct([pa.field("text", pa.string()), pa.field("box", _BOX)]))),
        pa.field("file_name", pa.string()),
        # For a set whose regions are described in evaluation: the first record of a region has all its expressions, the
        # others an empty list. For other sets null.
        pa.field("expressions", pa.list_(pa.string())),
    ]
)
EVALUATION = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("file_name", pa.string()),
        pa.field("set", pa.string()),
    ]
)


def shard_set(folder: str, entry: InstructionSet) -> ShardSet:
    """Return the shards of a set in the folder of a step."""
    return ShardSet(folder, "instructions", entry.name)


def evaluation_name(entry: InstructionSet) -> str:
    """Return the file with a set's evaluation images, relative to the folder of the step."""
    return f"source/evaluation@{entry.name}.parquet"


def cut_set(entry: InstructionSet, folder: str, shard_rows: int) -> ShardIndex:
    """Write the shards and the evaluation images of a set, in the memory of one shard.

    The files are read once. They are read twice where evaluation splits that the set leaves out are in the same files.

    Args:
        entry: the set.
        folder: the folder of the step.
        shard_rows: questions per shard.

    Raises:
        UserError: a file is missing or has another format.
    """
    evaluated: dict[str, str | None] = {}
    for record in _of_other_splits(entry):
        evaluated |= _images(record)

    def rows() -> Iterator[Mapping[str, Any]]:
        expressions = _expressions_by_region(entry)
        for record in read_questions(entry.kind, entry.files()):
            if isinstance(record, BadRecord):
                if entry.mode != "keep_out":
                    yield vars(record)
                continue
            if entry.mode != "train" or record.evaluates:
                evaluated.update(_images(record))
            if entry.mode != "keep_out":
                yield _row(record, expressions)
        # Written before the generator ends: `cut` then writes the index, which proves that the set is complete.
        ids = sorted(evaluated)
        columns = {"image_id": ids, "file_name": [evaluated[name] for name in ids], "set": [entry.name] * len(ids)}
        table = pa.table(columns, schema=EVALUATION)
        write_parquet(folder, evaluation_name(entry), table)

    return shard_set(folder, entry).cut(rows(), QUESTIONS, shard_rows)


def read_records(table: pa.Table) -> Iterator[tuple[QuestionRecord, tuple[str, ...] | None]]:
    """Yield the records of a shard, each with its column `expressions` (see `QUESTIONS`).

    Args:
        table: the shard, with the schema `QUESTIONS`.
    """
    for row in table.to_pylist():
        expressions = row.pop("expressions")
        row["phrases"] = tuple((piece["text"], _corners(piece["box"])) for piece in row["phrases"] or ())
        row["box"] = _corners(row["box"])
        row["answers"], row["choices"] = tuple(row["answers"] or ()), tuple(row["choices"] or ())
        yield QuestionRecord(**row), None if expressions is None else tuple(expressions)


def _corners(values: list[float] | None) -> Any:
    return None if values is None else tuple(values)


def _images(record: QuestionRecord) -> dict[str, str | None]:
    """Return the ids of a record's picture; the file name belongs to the id in the record's own collection only."""
    also: dict[str, str | None] = {} if record.same_as is None else {record.same_as: None}
    return {**also, record.image_id: record.file_name}


def _row(record: QuestionRecord, expressions: "_Expressions | None") -> dict[str, Any]:
    phrases = [{"text": text, "box": box} for text, box in record.phrases]
    references = expressions.of(record) if expressions is not None else None
    return {**vars(record), "phrases": phrases, "expressions": references}


def _of_other_splits(entry: InstructionSet) -> Iterator[QuestionRecord]:
    """Yield the records of evaluation splits in the files of a training set of one split, such as RefCOCO's val."""
    if entry.mode == "train" and entry.split is not None and "split" in question_source(entry.kind).uses:
        for record in read_questions(entry.kind, dataclasses.replace(entry.files(), split=None)):
            if isinstance(record, QuestionRecord) and record.evaluates:
                yield record


class _Expressions:
    """The expressions of each region of a set, which are the references when the region is described.

    Args:
        entry: the set. Its files are read once here; the rows are kept on disk.
    """

    def __init__(self, entry: InstructionSet) -> None:
        self._rows = RowsByKey()
        self._returned: set[str] = set()
        for record in read_questions(entry.kind, entry.files()):
            if isinstance(record, QuestionRecord):
                self._rows.add(self._region(record), record.text)

    def of(self, record: QuestionRecord) -> list[str]:
        """Return all expressions of a record's region at its first record, and an empty list at the others."""
        region = self._region(record)
        if region in self._returned:
            return []
        self._returned.add(region)
        return self._rows.get(region)

    @staticmethod
    def _region(record: QuestionRecord) -> str:
        return f"{record.image_id}/{record.region_id or record.sample_id}"


def _expressions_by_region(entry: InstructionSet) -> _Expressions | None:
    return _Expressions(entry) if entry.mode == "evaluate" and "reg" in entry.chosen_tasks() else None


def was_cut(entry: InstructionSet, folder: str) -> ShardIndex | None:
    """Return the index of a set that is cut completely, with its evaluation images; None otherwise."""
    listed = storage.exists(storage.join(folder, evaluation_name(entry)))
    return shard_set(folder, entry).index() if listed else None
