"""POPE: JSON lines with yes or no."""

from typing import Any

import pytest

from pipelines.errors import UserError
from pipelines.sources import records
from pipelines.sources.pope import read_questions
from pipelines.sources.records import BadRecord, QuestionRecord
from tests.pipelines.sources.conftest import Write


def row(number: int = 1, **changes: Any) -> dict[str, Any]:
    name = "COCO_val2014_000000542145.jpg"
    return {"question_id": number, "image": name, "text": "Is there a sink?", "label": "yes", **changes}


def test_the_image_is_found_by_the_number_in_its_name(write: Write) -> None:
    (found,) = read_questions(write([row()], lines=True))
    assert found == QuestionRecord("1", "542145", "pope", "image", "Is there a sink?", ("yes",))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (row(1), records.DUPLICATE_ID),
        (row(2, label="maybe"), records.WRONG_VALUE),
        (row(2, label=True), records.WRONG_TYPE),
        ({"question_id": 2}, records.MISSING_KEY),
        ('{"question_id": 2,', records.BROKEN_LINE),
        ("[1, 2]", records.BROKEN_LINE),
    ],
)
def test_a_bad_line_is_set_aside_alone(write: Write, line: Any, reason: str) -> None:
    found = list(read_questions(write([row(1), line, row(3)], lines=True)))
    assert [record.reason for record in found if isinstance(record, BadRecord)] == [reason]
    assert [record.sample_id for record in found if isinstance(record, QuestionRecord)] == ["1", "3"]


def test_a_broken_first_line_does_not_hide_the_rest(write: Write) -> None:
    found = list(read_questions(write(["{", "", row(2)], lines=True)))
    assert [type(record) for record in found] == [BadRecord, QuestionRecord]
    assert isinstance(found[0], BadRecord)
    assert "line 1" in found[0].detail


@pytest.mark.parametrize("content", [b"\x80\x04pickle", b"question,label\n1,yes\n", b'[{"question_id": 1}]\n'])
def test_a_file_of_another_format_is_the_users_mistake(write: Write, content: bytes) -> None:
    with pytest.raises(UserError, match="not a file of JSON lines: line 1"):
        list(read_questions(write(content)))
