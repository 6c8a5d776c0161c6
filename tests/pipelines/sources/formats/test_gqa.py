"""GQA: one object of questions about Visual Genome's images."""

from typing import Any

import pytest

from pipelines.sources import records
from pipelines.sources.formats.gqa import read_questions
from pipelines.sources.records import BadRecord, QuestionRecord
from tests.pipelines.sources.conftest import Write


def question(**changes: Any) -> dict[str, Any]:
    """Return an entry with the keys of train_balanced_questions.json."""
    return {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "sky (2486325)"}],
        "entailed": ["02930160"],
        "equivalent": ["02930152"],
        "question": "Is the sky dark?",
        "imageId": "2354786",
        "isBalanced": True,
        "groups": {"global": None, "local": "06-sky_dark"},
        "answer": "yes",
        "semanticStr": "select: sky (2486325)->verify color: dark [0]",
        "annotations": {"answer": {}, "question": {"2": "2486325"}, "fullAnswer": {"2": "2486325"}},
        "types": {"detailed": "verifyAttr", "semantic": "attr", "structural": "verify"},
        "fullAnswer": "Yes, the sky is dark.",
        **changes,
    }


def test_questions_in_the_files_order(write: Write) -> None:
    path = write({"02930152": question(), "07333408": question(imageId="n161313", question="What is it?")})
    first, second = read_questions(path)
    assert first == QuestionRecord("02930152", "vg/2354786", "vqa", "image", "Is the sky dark?", ("yes",))
    assert isinstance(second, QuestionRecord)
    assert second.image_id == "vg/n161313"


def test_test_files_have_no_answers(write: Write) -> None:
    (record,) = read_questions(write({"1": {"imageId": "5", "question": "What is it?", "isBalanced": True}}))
    assert isinstance(record, QuestionRecord)
    assert record.answers == ()


def test_coco_ids_come_from_visual_genomes_list(write: Write) -> None:
    image_data = write([{"image_id": 2354786, "coco_id": 309}, {"image_id": 5, "coco_id": None}], "image_data.json")
    (record,) = read_questions(write({"1": question()}), image_data)
    assert isinstance(record, QuestionRecord)
    assert record.same_as == "309"


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ([], records.WRONG_TYPE),
        (question(question=""), records.EMPTY_TEXT),
        (question(answer=None), records.WRONG_TYPE),
        ({"question": "What?"}, records.MISSING_KEY),
    ],
)
def test_a_bad_entry_becomes_a_bad_record(write: Write, entry: Any, reason: str) -> None:
    rows = list(read_questions(write({"1": entry, "2": question()})))
    assert [record.reason for record in rows if isinstance(record, BadRecord)] == [reason]
    assert [record.sample_id for record in rows if isinstance(record, QuestionRecord)] == ["2"]
