"""Every format of the project reads every row of real files without a bad record."""

from collections import Counter
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.core.tables import IMAGES
from pipelines.sources import (
    IMAGE_SOURCES,
    QUESTION_SOURCES,
    QuestionFiles,
    read_images,
    read_questions,
)
from pipelines.sources.records import ImageRecord, QuestionRecord


@pytest.mark.parametrize(
    ("kind", "annotations", "images", "captions"),
    [
        ("coco_captions", "coco/captions.json", 161, 805),
        ("coco_instances", "coco/instances.json", 138, 0),
        ("folder", None, 162, 0),
    ],
)
def test_real_image_sources(shared: Path, kind: str, annotations: str | None, images: int, captions: int) -> None:
    path = str(shared / "data" / annotations) if annotations else None
    results = list(read_images(kind, path, str(shared / "data/coco/images"), "val"))
    records = [record for record in results if isinstance(record, ImageRecord)]
    assert len(results) == len(records) == images
    assert sum(len(record.captions) for record in records) == captions
    assert all(Path(record.uri).is_file() for record in records)
    assert {record.image_id for record in records} >= {"285", "785"}
    assert set(vars(records[0])) == set(IMAGES.names)


@pytest.mark.parametrize(
    ("kind", "files", "rows"),
    [
        ("coco_captions", QuestionFiles("coco/captions.json"), 161),
        ("vqa", QuestionFiles("coco/vqav2.json"), 8),
        ("aokvqa", QuestionFiles("coco/aokvqa_val.json", split="val"), 32),
        ("refcoco", QuestionFiles("refcoco/refcoco_val.jsonl", split="val"), 10_834),
        ("refcoco", QuestionFiles("refcoco/refcoco+_val.jsonl", split="val"), 10_758),
        ("refcoco", QuestionFiles("refcoco/refcocog_val_umd.jsonl", split="val"), 4_896),
        ("refcoco", QuestionFiles("coco/refcoco.jsonl"), 6),
        ("pope", QuestionFiles("coco/pope_random.json"), 6),
        ("pope", QuestionFiles("coco/pope_popular.json"), 6),
        ("pope", QuestionFiles("coco/pope_adversarial.json"), 6),
        ("pope", QuestionFiles("metrics/pope/coco_pope_random.json"), 2_910),
        ("pope", QuestionFiles("metrics/pope/coco_pope_adversarial.json"), 3_000),
    ],
    ids=lambda value: value.annotations if isinstance(value, QuestionFiles) else str(value),
)
def test_real_question_sources(shared: Path, kind: str, files: QuestionFiles, rows: int) -> None:
    real = QuestionFiles(str(shared / "data" / files.required()), split=files.split)
    results = list(read_questions(kind, real))
    assert Counter(type(record) for record in results) == {QuestionRecord: rows}
    ids = [record.sample_id for record in results if isinstance(record, QuestionRecord)]
    assert len(set(ids)) == rows


def test_sample_world_is_read_by_the_same_readers(world: Path) -> None:
    for split, images in (("train", 48), ("val", 6), ("test", 6)):
        records = list(
            read_images("coco_captions", str(world / f"captions_{split}.json"), str(world / "images"), split)
        )
        ids = {record.image_id for record in records}
        assert len(ids) == len(records) == images
        assert all(isinstance(record, ImageRecord) and Path(record.uri).is_file() for record in records)
        for kind, files in {
            "vqa": QuestionFiles(
                str(world / f"vqa_annotations_{split}.json"), str(world / f"vqa_questions_{split}.json")
            ),
            "aokvqa": QuestionFiles(str(world / f"aokvqa_{split}.json"), split=split),
            "refcoco": QuestionFiles(str(world / "refcoco/refs(sample).p"), split=split),
            "pope": QuestionFiles(str(world / f"pope_adversarial_{split}.json")),
        }.items():
            questions = list(read_questions(kind, files))
            assert questions
            assert all(isinstance(record, QuestionRecord) for record in questions)
            assert {record.image_id for record in questions} <= ids


@pytest.mark.parametrize("kind", sorted(kind for kind in IMAGE_SOURCES if not kind.endswith("folder")))
def test_missing_image_annotations_are_the_users_mistake(kind: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing.json")
    with pytest.raises(UserError, match=r"nothing\.json does not exist"):
        list(read_images(kind, missing, str(tmp_path)))
    with pytest.raises(UserError, match="set annotations"):
        list(read_images(kind, None, str(tmp_path)))


@pytest.mark.parametrize("kind", sorted(QUESTION_SOURCES))
def test_missing_question_files_are_the_users_mistake(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(nothing|pid_splits|image_data)\.json (does not exist|is not a folder)"):
        list(read_questions(kind, QuestionFiles(str(tmp_path / "nothing.json"))))
    with pytest.raises(UserError, match="annotation"):
        list(read_questions(kind, QuestionFiles()))
