"""Evaluation images are recognized by id, by the id in another collection, and by content."""

from pathlib import Path

import pytest

from pipelines.core.parquet import write_parquet
from pipelines.instructions.images import Picture
from pipelines.instructions.leakage import FILE, EvaluationImages
from pipelines.instructions.questions import EVALUATION
from pipelines.sources.records import QuestionRecord


@pytest.fixture
def evaluation(tmp_path: Path) -> EvaluationImages:
    """Three evaluation images, one with a digest and one with a file name."""
    import pyarrow as pa

    schema = pa.schema([*EVALUATION, pa.field("digest", pa.binary())])
    rows = {
        "image_id": ["309", "310", "9"],
        "file_name": [None, None, "nocaps_9.jpg"],
        "set": ["refcoco", "pope", "nocaps"],
        "digest": [b"a", None, None],
    }
    write_parquet(str(tmp_path), FILE, pa.table(rows, schema=schema))
    return EvaluationImages(str(tmp_path))


@pytest.mark.parametrize(
    ("image_id", "same_as", "digest", "match"),
    [
        ("309", None, None, ("id", "refcoco")),
        ("vg/5", "310", b"b", ("same_picture", "pope")),
        ("vg/6", "311", b"a", ("content", "refcoco")),
        ("vg/309", None, None, None),
        ("311", None, b"b", None),
    ],
)
def test_how_an_image_is_recognized(
    evaluation: EvaluationImages, image_id: str, same_as: str | None, digest: bytes | None, match: object
) -> None:
    record = QuestionRecord("1", image_id, "rec", "region", "man", (), same_as=same_as)
    assert evaluation.find(record, Picture("/x.jpg", 4, 3, digest)) == match


def test_another_collections_picture_of_that_number_is_not_kept_out(evaluation: EvaluationImages) -> None:
    record = QuestionRecord("1", "9", "vqa", "image", "Who?", ("a man",))
    assert evaluation.find(record, Picture("/val2014/COCO_val2014_000000000009.jpg", 4, 3)) is None
    assert evaluation.find(record, Picture("s3://bucket/nocaps/nocaps_9.png", 4, 3)) == ("id", "nocaps")
