"""A-OKVQA: choices, the correct one, direct answers, and a test split without them."""

from typing import Any

import pytest

from pipelines.sources import records
from pipelines.sources.formats.aokvqa import read_questions
from pipelines.sources.records import BadRecord, QuestionRecord
from tests.pipelines.sources.conftest import Write


def row(question_id: str = "a", **changes: Any) -> dict[str, Any]:
    return {
        "split": "val",
        "image_id": 7,
        "question_id": question_id,
        "question": "What is it?",
        "choices": ["cat", "dog", "cow", "hen"],
        "correct_choice_idx": 1,
        "direct_answers": ["dog"] * 10,
        "difficult_direct_answer": False,
        **changes,
    }


def test_a_row_has_both_kinds_of_answer(write: Write) -> None:
    (record,) = read_questions(write([row(difficult_direct_answer=True)]), "val")
    assert isinstance(record, QuestionRecord)
    assert (record.choices[1], record.correct_choice, len(record.answers), record.difficult) == ("dog", 1, 10, True)


def test_only_the_requested_split(write: Write) -> None:
    path = write([row("a"), row("b", split="train")])
    assert [record.sample_id for record in read_questions(path, "train") if isinstance(record, QuestionRecord)] == ["b"]
    assert len(list(read_questions(path, None))) == 2


def test_the_test_split_hides_its_answers(write: Write) -> None:
    hidden = row(split="test")
    del hidden["correct_choice_idx"], hidden["direct_answers"]
    (record,) = read_questions(write([hidden]), "test")
    assert isinstance(record, QuestionRecord)
    assert (record.answers, record.correct_choice) == ((), None)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (row("a"), records.DUPLICATE_ID),
        (row("b", correct_choice_idx=4), records.WRONG_VALUE),
        (row("b", correct_choice_idx="1"), records.WRONG_TYPE),
        (row("b", choices=["cat", 1]), records.WRONG_TYPE),
        (row("b", direct_answers=[]), records.NO_ANSWER),
        (row("b", question=""), records.EMPTY_TEXT),
        ({"split": "val"}, records.MISSING_KEY),
        (None, records.WRONG_TYPE),
    ],
)
def test_a_bad_row_becomes_a_bad_record(write: Write, entry: Any, reason: str) -> None:
    rows = list(read_questions(write([row("a"), entry, row("z")]), "val"))
    assert [record.reason for record in rows if isinstance(record, BadRecord)] == [reason]
    assert [record.sample_id for record in rows if isinstance(record, QuestionRecord)] == ["a", "z"]
