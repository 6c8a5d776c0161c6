"""Question files cut into shards, once: what every set's shards hold, and which images its evaluation splits have."""

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
        # Of a set whose regions are described for evaluation: all expressions of the region, once; then an empty list.
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
    """Return the shards of a set in an instructions step's folder."""
    return ShardSet(folder, "instructions", entry.name)


def evaluation_name(entry: InstructionSet) -> str:
    """Return the list of a set's evaluation images, relative to the step's folder."""
    return f"source/evaluation@{entry.name}.parquet"


def cut_set(entry: InstructionSet, folder: str, shard_rows: int) -> ShardIndex:
    """Read a set's files once (with another split's images: twice) and write its shards and evaluation images.

    Raises:
        UserError: a file is missing or of another format.
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
        # Here, since the index that proves the set cut is written when the rows are at their end.
        ids = sorted(evaluated)
        columns = {"image_id": ids, "file_name": [evaluated[name] for name in ids], "set": [entry.name] * len(ids)}
        table = pa.table(columns, schema=EVALUATION)
        write_parquet(folder, evaluation_name(entry), table)

    return shard_set(folder, entry).cut(rows(), QUESTIONS, shard_rows)


def read_records(table: pa.Table) -> Iterator[tuple[QuestionRecord, tuple[str, ...] | None]]:
    """Return the records of a shard, each with the expressions of its region where they are to be its references."""
    for row in table.to_pylist():
        expressions = row.pop("expressions")
        row["phrases"] = tuple((piece["text"], _corners(piece["box"])) for piece in row["phrases"] or ())
        row["box"] = _corners(row["box"])
        row["answers"], row["choices"] = tuple(row["answers"] or ()), tuple(row["choices"] or ())
        yield QuestionRecord(**row), None if expressions is None else tuple(expressions)


def _corners(values: list[float] | None) -> Any:
    return None if values is None else tuple(values)


def _images(record: QuestionRecord) -> dict[str, str | None]:
    """Return the ids of a record's picture, with its file's name where that is of the id's own collection."""
    also: dict[str, str | None] = {} if record.same_as is None else {record.same_as: None}
    return {**also, record.image_id: record.file_name}


def _row(record: QuestionRecord, expressions: "_Expressions | None") -> dict[str, Any]:
    phrases = [{"text": text, "box": box} for text, box in record.phrases]
    said = expressions.of(record) if expressions is not None else None
    return {**vars(record), "phrases": phrases, "expressions": said}


def _of_other_splits(entry: InstructionSet) -> Iterator[QuestionRecord]:
    """What a training set's files hold of evaluation splits that the set leaves out: RefCOCO's val and test."""
    if entry.mode == "train" and entry.split is not None and "split" in question_source(entry.kind).uses:
        for record in read_questions(entry.kind, dataclasses.replace(entry.files(), split=None)):
            if isinstance(record, QuestionRecord) and record.evaluates:
                yield record


class _Expressions:
    """All expressions of each region, given with its first record: the references of the region's description."""

    def __init__(self, entry: InstructionSet) -> None:
        self._rows = RowsByKey()
        self._given: set[str] = set()
        for record in read_questions(entry.kind, entry.files()):
            if isinstance(record, QuestionRecord):
                self._rows.add(self._region(record), record.text)

    def of(self, record: QuestionRecord) -> list[str]:
        """Return the expressions of its region, empty but for the region's first record."""
        region = self._region(record)
        if region in self._given:
            return []
        self._given.add(region)
        return self._rows.get(region)

    @staticmethod
    def _region(record: QuestionRecord) -> str:
        return f"{record.image_id}/{record.region_id or record.sample_id}"


def _expressions_by_region(entry: InstructionSet) -> _Expressions | None:
    return _Expressions(entry) if entry.mode == "evaluate" and "reg" in entry.chosen_tasks() else None


def was_cut(entry: InstructionSet, folder: str) -> ShardIndex | None:
    """Return the index of a set that was cut to its end, and whose evaluation images were listed."""
    listed = storage.exists(storage.join(folder, evaluation_name(entry)))
    return shard_set(folder, entry).index() if listed else None
