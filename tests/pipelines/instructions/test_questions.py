"""Sets cut into shards: every record comes back as it was read, and evaluation images are listed."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.instructions.config import InstructionSet
from pipelines.instructions.questions import QUESTIONS, cut_set, evaluation_name, read_records, shard_set, was_cut
from pipelines.sources import QuestionFiles, read_questions
from pipelines.sources.records import QuestionRecord


def cut(entry: InstructionSet, folder: Path, rows: int = 7) -> list[tuple[QuestionRecord, tuple[str, ...] | None]]:
    """Cut a set and return its records as its shards have them."""
    index = cut_set(entry, str(folder), rows)
    shards = shard_set(str(folder), entry)
    return [record for shard in range(index.shards) for record in read_records(shards.read(shard, QUESTIONS))]


def evaluated(entry: InstructionSet, folder: Path) -> list[str]:
    """Return the ids of a set's evaluation images."""
    return pq.read_table(folder / evaluation_name(entry))["image_id"].to_pylist()


@pytest.mark.parametrize(
    ("kind", "name"), [("aokvqa", "aokvqa_train.json"), ("refcoco", "refcoco/refs(sample).p"),
                       ("coco_captions", "captions_train.json")],
)  # fmt: skip
def test_records_come_back_as_they_were_read(world: Path, tmp_path: Path, kind: str, name: str) -> None:
    records = cut(InstructionSet(name="s", kind=kind, annotations=str(world / name)), tmp_path)
    assert [record for record, _ in records] == list(read_questions(kind, QuestionFiles(str(world / name))))
    assert {expressions for _, expressions in records} == {None}


def test_phrases_come_back_as_they_were_read(tmp_path: Path) -> None:
    for name, content in {
        "Sentences/1.txt": "[/EN#1/people A man] runs .",
        "Annotations/1.xml": "<a><object><name>1</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax>"
        "<ymax>4.5</ymax></bndbox></object></a>",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    ((record, _),) = cut(InstructionSet(name="s", kind="flickr30k_entities", annotations=str(tmp_path)), tmp_path)
    assert record.phrases == (("A man", (0.0, 1.0, 2.0, 2.5)), (" runs .", None))  # counted from 1 in the file


def test_the_first_record_of_a_region_has_all_its_expressions(world: Path, tmp_path: Path) -> None:
    path = str(world / "refcoco/refs(sample).p")
    entry = InstructionSet(name="s", kind="refcoco", annotations=path, tasks=["reg"], mode="evaluate", split="val")
    records = cut(entry, tmp_path)
    by_region = {record.region_id: expressions for record, expressions in records if expressions}
    assert len(by_region) == len({(record.image_id, record.region_id) for record, _ in records})
    for region, expressions in by_region.items():
        assert sorted(expressions or ()) == sorted(record.text for record, _ in records if record.region_id == region)


@pytest.mark.parametrize("split", ["train", None])
def test_evaluation_images_in_a_training_sets_file_are_listed(world: Path, tmp_path: Path, split: str | None) -> None:
    path = str(world / "refcoco/refs(sample).p")
    entry = InstructionSet(name="s", kind="refcoco", annotations=path, split=split)
    cut(entry, tmp_path)
    assert {image_id[0] for image_id in evaluated(entry, tmp_path)} == {"2", "3"}, "val and test begin with 2 and 3"


def test_a_set_of_mode_keep_out_gives_only_its_images(tmp_path: Path) -> None:
    path = tmp_path / "pope.json"
    row = {"question_id": 1, "image": "COCO_val2014_000000000309.jpg", "text": "Is it?", "label": "no"}
    path.write_text(json.dumps(row) + "\n{broken\n")
    entry = InstructionSet(name="s", kind="pope", annotations=str(path), mode="keep_out")
    assert cut(entry, tmp_path) == []
    assert evaluated(entry, tmp_path) == ["309"]
    assert was_cut(entry, str(tmp_path)) is not None
