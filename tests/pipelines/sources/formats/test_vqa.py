"""VQAv2 and OK-VQA: questions and annotations are joined by id, from two files or one."""

from typing import Any

import pytest

from pipelines.sources import records
from pipelines.sources.formats.vqa import read_questions
from pipelines.sources.records import BadRecord, QuestionRecord
from tests.pipelines.sources.conftest import Write


def question(number: Any, **changes: Any) -> dict[str, Any]:
    return {"question_id": number, "image_id": 7, "question": "What is it?", **changes}


def annotation(number: Any, answers: Any = ("cat", "dog")) -> dict[str, Any]:
    entries = [{"answer": answer, "answer_id": 1} for answer in answers] if isinstance(answers, tuple) else answers
    return {"question_id": number, "image_id": 7, "answers": entries}


def test_two_files_are_joined_by_question(write: Write) -> None:
    questions = write({"questions": [question(1), question(2)]}, "questions.json")
    annotations = write({"annotations": [annotation(2, ("yes", "no")), annotation(1)]}, "annotations.json")
    assert list(read_questions(annotations, questions)) == [
        QuestionRecord("1", "7", "vqa", "image", "What is it?", ("cat", "dog")),
        QuestionRecord("2", "7", "vqa", "image", "What is it?", ("yes", "no")),
    ]


def test_a_test_split_has_questions_only(write: Write) -> None:
    (record,) = read_questions(None, write({"questions": [question(1)]}))
    assert isinstance(record, QuestionRecord)
    assert record.answers == ()


@pytest.mark.parametrize(
    ("questions", "annotations", "reason"),
    [
        ([question(1), question(1)], [annotation(1)], records.DUPLICATE_ID),
        ([question(1), question(2)], [annotation(1)], records.NO_ANSWER),
        ([question(1)], [annotation(1), annotation(2)], records.UNKNOWN_QUESTION),
        ([question(1), question(2, question=" ")], [annotation(1), annotation(2)], records.EMPTY_TEXT),
        ([question(1), {"question_id": 2}], [annotation(1)], records.MISSING_KEY),
        ([question(1)], [annotation(1), annotation(1, [{"answer": 3}])], records.WRONG_TYPE),
        ([question(1)], [annotation(1), annotation(1, [])], records.NO_ANSWER),
        ([question(1)], [annotation(1), []], records.WRONG_TYPE),
    ],
)
def test_a_bad_entry_becomes_a_bad_record(
    write: Write, questions: list[Any], annotations: list[Any], reason: str
) -> None:
    path = write({"questions": questions, "annotations": annotations})
    rows = list(read_questions(path, path))
    assert [record.reason for record in rows if isinstance(record, BadRecord)] == [reason]
    assert [record.sample_id for record in rows if isinstance(record, QuestionRecord)] == ["1"]
