"""The work on one shard of questions: read it, join it with its images, build the rows, write them and the proof."""

import dataclasses
import json
from collections import Counter
from typing import Any, Literal

import pyarrow as pa

from pipelines.core import storage, tables
from pipelines.core.parquet import write_parquet
from pipelines.instructions.builder import (
    EVALUATION_IMAGE,
    IMAGE_NOT_TAGGED,
    OTHER_PICTURE,
    STAGE,
    Row,
    Wording,
    build_rows,
)
from pipelines.instructions.config import InstructionSet
from pipelines.instructions.images import Picture, is_another, open_index
from pipelines.instructions.leakage import open_evaluation
from pipelines.instructions.questions import QUESTIONS, read_records, shard_set
from pipelines.instructions.statistics import examples, row_statistics
from pipelines.sources.records import BadRecord, QuestionRecord


@dataclasses.dataclass
class _ShardRows:
    """The rows of a shard.

    Attributes:
        rows: rows of the instructions table.
        pictures: the image of each row.
        bad: rows of the quarantine.
        left_out: rows that the rules of a benchmark or a task leave out, by reason.
        leaked: training records about evaluation images, by how the image was recognized.
        leaked_images: the ids of these images.
    """

    rows: list[Row] = dataclasses.field(default_factory=list)
    pictures: list[Picture] = dataclasses.field(default_factory=list)
    bad: list[BadRecord] = dataclasses.field(default_factory=list)
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)
    leaked: Counter[str] = dataclasses.field(default_factory=Counter)
    leaked_images: set[str] = dataclasses.field(default_factory=set)


class BuildShard:
    """Builds one shard: takes the numbers of the set and the shard, writes the files, and returns the proof.

    Args:
        folder: the folder of the step.
        sets: all sets.
        wording: the settings of the rows' text.
        evaluation_images: whether training rows about evaluation images are quarantined or kept.
        tokenizer: folder of a tokenizer, or empty.
    """

    def __init__(
        self,
        folder: str,
        sets: list[InstructionSet],
        wording: Wording,
        evaluation_images: Literal["keep_out", "allow"],
        tokenizer: str,
    ) -> None:
        self._folder, self._sets, self._wording = folder, sets, wording
        self._keep_out, self._tokenizer = evaluation_images == "keep_out", tokenizer

    def __call__(self, batch: pa.Table) -> pa.Table:
        ((number, shard),) = zip(batch["set"].to_pylist(), batch["shard"].to_pylist(), strict=True)
        entry = self._sets[number]
        built = self._build(entry, shard)
        shards = shard_set(self._folder, entry)
        bad = tables.to_table([vars(record) for record in built.bad], tables.QUARANTINE)
        quarantine = shards.write_quarantine(shard, bad)
        table = tables.to_table(built.rows, tables.INSTRUCTIONS)
        files = [write_parquet(self._folder, shards.result_name(shard), table), *quarantine]
        proof: dict[str, Any] = {
            "set": number,
            "shard": shard,
            "rows": len(built.rows),
            "tasks": dict(Counter(row["task"] for row in built.rows)),
            "reasons": dict(Counter(record.reason for record in built.bad)),
            "left_out": dict(built.left_out),
            "evaluation_images": dict(built.leaked),
            "files": files,
        }
        # The proof on disk has more than the one that is returned: only the data card needs these entries, and the
        # driver's memory must not grow with the number of shards.
        for_card = {
            "statistics": row_statistics(
                built.rows, [picture.tag_tokens for picture in built.pictures], self._tokenizer
            ),
            "examples": examples(built.rows, [picture.uri for picture in built.pictures]),
            "leaked_images": sorted(built.leaked_images),
        }
        storage.write_json(shards.done_file(shard), {**proof, **for_card})
        return pa.table({"proof": [json.dumps(proof)]})

    def _build(self, entry: InstructionSet, shard: int) -> _ShardRows:
        records = list(read_records(shard_set(self._folder, entry).read(shard, QUESTIONS)))
        pictures = open_index(self._folder).find([record.image_id for record, _ in records])
        built = _ShardRows()
        for (record, expressions), picture in zip(records, pictures, strict=True):
            if picture is None:
                detail = f"{entry.name}: sample {record.sample_id}"
                built.bad.append(BadRecord(record.image_id, None, STAGE, IMAGE_NOT_TAGGED, detail))
            elif is_another(picture, record.file_name):
                detail = (
                    f"{entry.name}: sample {record.sample_id} is about {record.file_name}, and the picture of that id "
                    f"in `tagged` is {picture.uri}; name the collection of one of them"
                )
                built.bad.append(BadRecord(record.image_id, picture.uri, STAGE, OTHER_PICTURE, detail))
            elif not self._leaks(entry, record, picture, built):
                for row in build_rows(entry, record, picture, self._wording, built.left_out, expressions):
                    if isinstance(row, BadRecord):
                        built.bad.append(row)
                    else:
                        built.rows.append(row)
                        built.pictures.append(picture)
        return built

    def _leaks(self, entry: InstructionSet, record: QuestionRecord, picture: Picture, built: _ShardRows) -> bool:
        """Count a training record about an evaluation image; return whether it is kept out."""
        match = open_evaluation(self._folder).find(record, picture) if entry.mode == "train" else None
        if match is None:
            return False
        how, name = match
        built.leaked[how] += 1
        built.leaked_images.add(record.image_id)
        if self._keep_out:
            detail = f"{entry.name}: sample {record.sample_id}: known by {how}, from {name}"
            built.bad.append(BadRecord(record.image_id, picture.uri, STAGE, EVALUATION_IMAGE, detail))
        return self._keep_out
