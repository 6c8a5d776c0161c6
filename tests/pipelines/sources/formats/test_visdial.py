"""VisDial: every round with the dialogue before it."""

from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.sources import read_images, records
from pipelines.sources.formats.visdial import ROUNDS_BEFORE, read_questions
from pipelines.sources.records import BadRecord, ImageRecord, QuestionRecord
from tests.pipelines.sources.conftest import Write

QUESTIONS = ["is it sunny", "how many dogs", "any people?"]
ANSWERS = ["yes", "2", "no, none"]


def dialog(image_id: Any = 378466, rounds: Any = None) -> dict[str, Any]:
    """Return a dialogue with the keys of visdial_1.0_train.json."""
    turns = [{"question": 0, "answer": 0}, {"question": 1, "answer": 1}] if rounds is None else rounds
    whole = [{**turn, "answer_options": [0, 1, 2], "gt_index": 0} for turn in turns]
    return {"image_id": image_id, "caption": "two dogs in a park", "dialog": whole}


def document(*dialogs: Any, split: str = "train") -> dict[str, Any]:
    data = {"questions": QUESTIONS, "answers": ANSWERS, "dialogs": list(dialogs)}
    return {"version": "1.0", "split": split, "data": data}


def test_a_round_contains_the_rounds_before_it(write: Write) -> None:
    first, second = read_questions(write(document(dialog())))
    assert isinstance(first, QuestionRecord)
    assert isinstance(second, QuestionRecord)
    assert (first.text, first.answers) == ("two dogs in a park. is it sunny?", ("yes",))
    assert (second.text, second.answers) == ("two dogs in a park. is it sunny? yes. how many dogs?", ("2",))
    assert (second.sample_id, second.image_id, second.split) == ("378466-2", "378466", "train")


def test_the_oldest_rounds_go_first(write: Write) -> None:
    rounds = [{"question": number % 3, "answer": number % 3} for number in range(8)]
    *_, last = read_questions(write(document(dialog(rounds=rounds))))
    assert isinstance(last, QuestionRecord)
    assert last.text.count("?") == ROUNDS_BEFORE + 1


def test_a_test_dialogue_ends_with_a_question_and_has_visdial_ids(write: Write, tmp_path: Any) -> None:
    *_, last = read_questions(write(document(dialog(rounds=[{"question": 0, "answer": 0}, {"question": 2}]),
                                             split="test")))  # fmt: skip
    assert isinstance(last, QuestionRecord)
    assert (last.answers, last.image_id, last.evaluates) == ((), "visdial/378466", True)
    (tmp_path / "VisualDialog_test2018_000000378466.jpg").touch()
    (image,) = read_images("folder", None, str(tmp_path))
    assert isinstance(image, ImageRecord)
    assert image.image_id == last.image_id


@pytest.mark.parametrize(
    ("entry", "reason", "kept"),
    [
        (dialog(), records.DUPLICATE_ID, 2),
        (dialog(1, [{"question": 9, "answer": 0}]), records.UNKNOWN_QUESTION, 2),
        (dialog(1, [{"question": 0, "answer": 0}, {"question": 1, "answer": 9}]), records.UNKNOWN_QUESTION, 3),
        ({"image_id": 1}, records.MISSING_KEY, 2),
    ],
)
def test_a_bad_dialogue_becomes_a_bad_record(write: Write, entry: Any, reason: str, kept: int) -> None:
    rows = list(read_questions(write(document(dialog(), entry))))
    assert [record.reason for record in rows if isinstance(record, BadRecord)] == [reason]
    assert sum(isinstance(record, QuestionRecord) for record in rows) == kept


def test_another_document_is_the_users_mistake(write: Write) -> None:
    with pytest.raises(UserError, match="has no split: it is not a VisDial"):
        list(read_questions(write({"data": []})))
