"""TextCaps: rows of one caption become images with all their captions."""

from typing import Any

from pipelines.sources import records
from pipelines.sources.formats.textcaps import read_images
from pipelines.sources.records import BadRecord, ImageRecord
from tests.pipelines.sources.conftest import Write


def row(image_id: Any, caption: Any, **changes: Any) -> dict[str, Any]:
    """Return a row with the keys of TextCaps_0.1_train.json."""
    return {
        "image_id": image_id,
        "image_classes": ["Poster"],
        "image_width": 1024,
        "image_height": 768,
        "image_name": image_id,
        "image_path": f"train/{image_id}.jpg",
        "caption_id": 1,
        "caption_str": caption,
        "reference_strs": [caption],
        "set_name": "train",
        **changes,
    }


def test_captions_are_gathered_by_image(write: Write) -> None:
    path = write({"data": [row("0a1b", "a sign"), row("77ff", "a clock"), row("0a1b", "stop sign")]})
    results = list(read_images(path, "/images", "train"))
    assert results == [
        ImageRecord("0a1b", "/images/0a1b.jpg", 1024, 768, "train", "textcaps", ("a sign", "stop sign")),
        ImageRecord("77ff", "/images/77ff.jpg", 1024, 768, "train", "textcaps", ("a clock",)),
    ]


def test_bad_rows_become_bad_records(write: Write) -> None:
    rows = [row("a", "a sign"), row("a", ""), row("b", None), {"caption_str": "lost"}, row(None, "x"), row("c", "ok")]
    results = list(read_images(write({"data": rows}), "/images", None))
    assert [record.image_id for record in results if isinstance(record, ImageRecord)] == ["a", "c"]
    assert [record.reason for record in results if isinstance(record, BadRecord)] == [
        records.EMPTY_TEXT,
        records.WRONG_TYPE,
        records.MISSING_KEY,
        records.WRONG_TYPE,
        records.NO_CAPTION,
    ]
