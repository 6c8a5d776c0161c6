"""OCR-VQA: book covers, each with its questions and answers."""

from typing import Any

import pytest

from pipelines.sources import records
from pipelines.sources.formats.ocrvqa import read_questions
from pipelines.sources.records import BadRecord, QuestionRecord
from tests.pipelines.sources.conftest import Write


def cover(split: Any = 1, **changes: Any) -> dict[str, Any]:
    """Return an entry with the keys of dataset.json."""
    return {
        "imageURL": "http://ecx.images-amazon.com/images/I/61Y5cOdHJbL.jpg",
        "questions": ["Who wrote this book?", "What is the title of this book?"],
        "answers": ["Sandra Boynton", "Mom's Family Wall Calendar 2016"],
        "title": "Mom's Family Wall Calendar 2016",
        "authorName": "Sandra Boynton",
        "genre": "Calendars",
        "split": split,
        **changes,
    }


def test_every_question_of_a_cover(write: Write) -> None:
    path = write({"761183272": cover(), "1523731206": cover(3)})
    rows = list(read_questions(path, "train"))
    text, answer = "Who wrote this book?", ("Sandra Boynton",)
    assert rows[0] == QuestionRecord("761183272-0", "ocrvqa/761183272", "vqa", "image", text, answer, split="train")
    assert len(rows) == 2
    assert [row.evaluates for row in read_questions(path, None) if isinstance(row, QuestionRecord)] == [
        False, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "reason", "kept"),
    [
        (cover(4), records.WRONG_VALUE, 2),
        (cover(answers=["one"]), records.WRONG_VALUE, 2),
        (cover(answers=["one", " "]), records.EMPTY_TEXT, 3),
        (cover(questions="who"), records.WRONG_TYPE, 2),
        (None, records.WRONG_TYPE, 2),
    ],
)
def test_a_bad_entry_becomes_a_bad_record(write: Write, entry: Any, reason: str, kept: int) -> None:
    rows = list(read_questions(write({"1": entry, "2": cover()}), None))
    assert [record.reason for record in rows if isinstance(record, BadRecord)] == [reason]
    assert sum(isinstance(record, QuestionRecord) for record in rows) == kept
