"""COCO captions: a bad entry becomes a bad record, and its image keeps its good captions."""

from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.sources import records
from pipelines.sources.formats.coco_captions import read_images
from pipelines.sources.records import BadRecord, ImageRecord
from tests.pipelines.sources.conftest import Write


def image(number: Any, **changes: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number}.jpg", "width": 64, "height": 48, **changes}


def caption(number: Any, text: Any = "a dog") -> dict[str, Any]:
    return {"id": 1, "image_id": number, "caption": text}


def read(path: str) -> tuple[list[ImageRecord], list[BadRecord]]:
    rows = list(read_images(path, "s3://bucket/images", "train"))
    good = [record for record in rows if isinstance(record, ImageRecord)]
    return good, [record for record in rows if isinstance(record, BadRecord)]


def test_images_keep_the_files_order_and_all_their_captions(write: Write) -> None:
    annotations = [caption(2, "two"), caption(1, "one "), caption(2, "zwei")]
    good, bad = read(write({"annotations": annotations, "images": [image(1), image(2)]}))
    assert [(record.image_id, record.captions) for record in good] == [("1", ("one",)), ("2", ("two", "zwei"))]
    assert good[0] == ImageRecord("1", "s3://bucket/images/1.jpg", 64, 48, "train", "coco_captions", ("one",))
    assert not bad


@pytest.mark.parametrize(
    ("images", "annotations", "reason", "kept"),
    [
        ([image(1), image(1, file_name="again.jpg")], [caption(1)], records.DUPLICATE_ID, 1),
        ([image(1)], [caption(1), caption(1, "  ")], records.EMPTY_TEXT, 1),
        ([image(1), image(2)], [caption(1)], records.NO_CAPTION, 1),
        ([image(1)], [caption(1), caption(9)], records.UNKNOWN_IMAGE, 1),
        ([image(1)], [caption(1), caption(1, 5)], records.WRONG_TYPE, 1),
        ([image(1)], [caption(1), {"image_id": 1}], records.MISSING_KEY, 1),
        ([image(1)], [caption(1), "caption"], records.WRONG_TYPE, 1),
        ([image(1), image(2, width="wide")], [caption(1), caption(2)], records.WRONG_TYPE, 1),
        ([image(1), image(2, height=-3)], [caption(1), caption(2)], records.WRONG_VALUE, 1),
        ([image(1), {"id": 2}], [caption(1), caption(2)], records.MISSING_KEY, 1),
        ([image(1), image(True)], [caption(1)], records.WRONG_TYPE, 1),
        ([image(1), image(None)], [caption(1)], records.WRONG_TYPE, 1),
    ],
)
def test_a_bad_entry_becomes_a_bad_record(
    write: Write, images: list[Any], annotations: list[Any], reason: str, kept: int
) -> None:
    good, bad = read(write({"images": images, "annotations": annotations}))
    assert [record.reason for record in bad] == [reason]
    assert bad[0].stage == "annotation"
    assert reason in records.REASONS
    assert len(good) == kept
    assert good[0].uri.endswith("/1.jpg"), "of two images of an id the first one is kept"


def test_an_image_whose_only_caption_is_empty_has_none(write: Write) -> None:
    good, bad = read(write({"images": [image(1)], "annotations": [caption(1, "")]}))
    assert not good
    assert [record.reason for record in bad] == [records.EMPTY_TEXT, records.NO_CAPTION]


def test_sizes_may_be_missing(write: Write) -> None:
    entry = {"id": 1, "file_name": "1.jpg"}
    good, _ = read(write({"images": [entry], "annotations": [caption(1)]}))
    assert (good[0].width, good[0].height) == (None, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [], "annotations": [{"image_id": 1, }]}', "line 1, column 48"),
        ("\x00\x01binary", "is not a JSON document"),
        ("", "is not a JSON document"),
        ('{"images": [{"id": 1', "is not a JSON document"),
        ("[]", "no array under 'annotations'"),
        ('{"annotations": []}', "no array under 'images'"),
        ('{"images": [], "questions": []}', "no array under 'annotations'"),
    ],
)
def test_another_document_is_the_users_mistake(write: Write, content: str, message: str) -> None:
    path = write(content)
    with pytest.raises(UserError, match=message) as error:
        read(path)
    assert path in str(error.value)
