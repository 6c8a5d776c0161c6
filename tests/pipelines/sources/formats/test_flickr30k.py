"""Flickr30K's captions in Karpathy's form and in the form of the release."""

from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.sources import QuestionFiles, read_questions, records
from pipelines.sources.formats.flickr30k import read_images
from pipelines.sources.records import BadRecord, ImageRecord, QuestionRecord
from tests.pipelines.sources.conftest import Write


def image(number: int, split: str = "train", captions: Any = ("Two men.", "A yard.")) -> dict[str, Any]:
    """Return an entry with the keys of dataset_flickr30k.json."""
    sentences = [
        {"tokens": str(text).lower().split(), "raw": text, "imgid": number, "sentid": 5 * number + index}
        for index, text in enumerate(captions)
    ]
    ids = [sentence["sentid"] for sentence in sentences]
    return {"sentids": ids, "imgid": number, "sentences": sentences, "split": split, "filename": f"{number}.jpg"}


def test_karpathys_form_has_splits(write: Write) -> None:
    path = write({"images": [image(1), image(2, "test")], "dataset": "flickr30k"})
    first, second = read_images(path, "/images", None)
    assert first == ImageRecord(
        "flickr30k/1", "/images/1.jpg", None, None, "train", "flickr30k", ("Two men.", "A yard.")
    )
    assert list(read_images(path, "/images", "test")) == [second]
    (record,) = read_questions("flickr30k", QuestionFiles(path, split="test"))
    assert isinstance(record, QuestionRecord)
    assert (record.image_id, record.evaluates, record.answers) == ("flickr30k/2", True, ("Two men.", "A yard."))


@pytest.mark.parametrize(
    ("entry", "reasons"),
    [
        (image(1), [records.DUPLICATE_ID]),
        (image(2, captions=[" "]), [records.EMPTY_TEXT, records.NO_CAPTION]),
        ({**image(2), "sentences": None}, [records.WRONG_TYPE]),
        ({"filename": "2.jpg"}, [records.MISSING_KEY]),
    ],
)
def test_a_bad_entry_becomes_a_bad_record(write: Write, entry: Any, reasons: list[str]) -> None:
    rows = list(read_images(write({"images": [image(1), entry]}), "/images", None))
    assert [record.reason for record in rows if isinstance(record, BadRecord)] == reasons
    assert [record.image_id for record in rows if isinstance(record, ImageRecord)] == ["flickr30k/1"]


def test_the_releases_own_form(write: Write) -> None:
    lines = "1.jpg#0\tTwo men .\n2.jpg#0\tA dog .\n1.jpg#1\tA yard .\n3.jpg#0\t\n4.jpg Two men .\n"
    rows = list(read_images(write(lines, "results_20130124.token"), "/images", "train"))
    assert [record.reason for record in rows if isinstance(record, BadRecord)] == [
        records.WRONG_VALUE,  # the tab ends the line and goes with its blanks
        records.WRONG_VALUE,
    ]
    assert [(record.image_id, record.captions) for record in rows if isinstance(record, ImageRecord)] == [
        ("flickr30k/1", ("Two men .", "A yard .")),
        ("flickr30k/2", ("A dog .",)),
    ]


def test_another_text_file_is_the_users_mistake(write: Write) -> None:
    with pytest.raises(UserError, match="no line FILE#NUMBER"):
        list(read_images(write("some text\n", "results.token"), "/images", None))
