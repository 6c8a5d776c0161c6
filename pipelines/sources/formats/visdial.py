"""VisDial 1.0: dialogues of ten questions about an image. Questions and answers are indices of two shared lists.

Format: https://visualdialog.org/data, `{"split", "data": {"questions": [...], "answers": [...], "dialogs":
[{"image_id", "caption", "dialog": [{"question": 17, "answer": 4, …}]}]}}`. The images of train are COCO's. Those of
val and test are VisDial's, with separate numbers.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.core.errors import UserError
from pipelines.sources.records import (
    DUPLICATE_ID,
    UNKNOWN_QUESTION,
    BadAnnotation,
    BadRecord,
    QuestionRecord,
    field,
    id_field,
    is_unicode,
    text_field,
    unicode_text,
)
from pipelines.sources.streams import array_elements, document_value

ROUNDS_BEFORE = 4
"""The number of rounds before a question that the text contains, after the caption: they fit into LION's 128 tokens."""


def read_questions(annotations: str) -> Iterator[QuestionRecord | BadRecord]:
    """Yield every round in the order of the file: the dialogue before it and the question, with its one answer.

    Test files have no answers.

    Raises:
        UserError: the file is missing, is not JSON, or has another format.
    """
    # The split decides what the image ids mean, so it is read first.
    split = document_value(annotations, "split")
    if not isinstance(split, str) or not is_unicode(split):
        raise UserError(f"{annotations} has no split: it is not a VisDial 1.0 file; choose the kind of its format.")
    questions = [_sentence(text) for text in array_elements(annotations, "data.questions")]
    answers = [str(text).strip() for text in array_elements(annotations, "data.answers")]
    seen: set[str] = set()
    for number, dialog in enumerate(array_elements(annotations, "data.dialogs")):
        where, image_id = f"dialogs[{number}]", None
        try:
            name = id_field(dialog, "image_id", where)
            image_id = name if split.startswith("train") else f"visdial/{name}"
            if image_id in seen:
                raise BadAnnotation(DUPLICATE_ID, f"{where}: image {image_id} was there before")
            seen.add(image_id)
            caption, rounds = text_field(dialog, "caption", where), field(dialog, "dialog", list, where)
        except BadAnnotation as error:
            yield error.record(image_id)
            continue
        dialogue: list[str] = []
        for position, turn in enumerate(rounds, start=1):
            try:
                question, answer = _round(turn, questions, answers, f"round {position} of {where}")
            except BadAnnotation as error:
                yield error.record(image_id)
                break  # the following rounds refer to this one
            text = " ".join([_sentence(caption, "."), *dialogue[-ROUNDS_BEFORE:], question])
            own_answers = () if answer is None else (answer,)
            yield QuestionRecord(f"{name}-{position}", image_id, "vqa", "image", text, own_answers, split=split)
            dialogue.append(f"{question} {_sentence(answer or '', '.')}")


def _round(turn: Any, questions: Sequence[str], answers: Sequence[str], where: str) -> tuple[str, str | None]:
    """Return the question of a round and its answer (None in test files)."""
    number = field(turn, "question", int, where)
    if not 0 <= number < len(questions):
        raise BadAnnotation(UNKNOWN_QUESTION, f"{where} refers to question {number} of {len(questions)}")
    question = unicode_text(questions[number], f"question {number} of {where}")
    if "answer" not in turn:
        return question, None
    answer = field(turn, "answer", int, where)
    if not 0 <= answer < len(answers):
        raise BadAnnotation(UNKNOWN_QUESTION, f"{where} refers to answer {answer} of {len(answers)}")
    return question, unicode_text(answers[answer], f"answer {answer} of {where}")


def _sentence(text: Any, end: str = "?") -> str:
    """Return a text with a mark at its end; most texts of the files have none."""
    text = str(text).strip()
    return text if not text or text[-1] in ".?!" else text + end
