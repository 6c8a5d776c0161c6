"""VSR: statements about COCO's images, true or false."""

from typing import Any

import pytest

from pipelines.sources import records
from pipelines.sources.formats.vsr import read_questions
from pipelines.sources.records import BadRecord, QuestionRecord
from tests.pipelines.sources.conftest import Write


def line(label: Any = 1, **changes: Any) -> dict[str, Any]:
    """Return a line with the keys of the splits' files."""
    return {
        "image": "000000050403.jpg",
        "image_link": "http://images.cocodataset.org/train2017/000000050403.jpg",
        "caption": "The teddy bear is in front of the person.",
        "label": label,
        "relation": "in front of",
        "annotator_id": 31,
        "vote_true_validator_id": [2, 6],
        "vote_false_validator_id": [],
        **changes,
    }


def test_statements_with_their_truth(write: Write) -> None:
    text = "The teddy bear is in front of the person."
    assert list(read_questions(write([line(), line(0)], "train.jsonl", lines=True))) == [
        QuestionRecord("1", "50403", "statement", "image", text, ("true",)),
        QuestionRecord("2", "50403", "statement", "image", text, ("false",)),
    ]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (line(2), records.WRONG_VALUE),
        (line(True), records.WRONG_TYPE),
        (line(caption=""), records.EMPTY_TEXT),
        ("{", records.BROKEN_LINE),
    ],
)
def test_a_bad_line_becomes_a_bad_record(write: Write, entry: Any, reason: str) -> None:
    rows = list(read_questions(write([line(), entry, line()], "train.jsonl", lines=True)))
    assert [record.reason for record in rows if isinstance(record, BadRecord)] == [reason]
    assert [record.sample_id for record in rows if isinstance(record, QuestionRecord)] == ["1", "3"]
