"""VisDial 1.0: dialogues of ten questions about a picture, by number of a shared list of questions and of answers.

Format: https://visualdialog.org/data, `{"split", "data": {"questions": [...], "answers": [...], "dialogs":
[{"image_id", "caption", "dialog": [{"question": 17, "answer": 4, …}]}]}}`. The pictures of train are COCO's; those of
val and test are VisDial's own and are numbered apart.
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
"""Rounds of a dialogue that stand before a question, with the caption: what LION's 128 tokens can hold."""


def read_questions(annotations: str) -> Iterator[QuestionRecord | BadRecord]:
    """Every round in the file's order: the dialogue before it and the question, with its one answer (tests: none).

    Raises:
        UserError: the file is missing, not JSON, or of another format.
    """
    split = document_value(annotations, "split")
    if not isinstance(split, str) or not is_unicode(split):
        raise UserError(f"{annotations} does not say its split: it is no VisDial 1.0 file; choose the kind that fits.")
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
        said: list[str] = []
        for place, turn in enumerate(rounds, start=1):
            try:
                asked, answer = _round(turn, questions, answers, f"round {place} of {where}")
            except BadAnnotation as error:
                yield error.record(image_id)
                break  # what follows refers to it
            text = " ".join([_sentence(caption, "."), *said[-ROUNDS_BEFORE:], asked])
            known = () if answer is None else (answer,)
            yield QuestionRecord(f"{name}-{place}", image_id, "vqa", "image", text, known, split=split)
            said.append(f"{asked} {_sentence(answer or '', '.')}")


def _round(turn: Any, questions: Sequence[str], answers: Sequence[str], where: str) -> tuple[str, str | None]:
    """Return a round's question and its answer, None in a test."""
    asked = field(turn, "question", int, where)
    if not 0 <= asked < len(questions):
        raise BadAnnotation(UNKNOWN_QUESTION, f"{where} refers to question {asked} of {len(questions)}")
    question = unicode_text(questions[asked], f"question {asked} of {where}")
    if "answer" not in turn:
        return question, None
    answer = field(turn, "answer", int, where)
    if not 0 <= answer < len(answers):
        raise BadAnnotation(UNKNOWN_QUESTION, f"{where} refers to answer {answer} of {len(answers)}")
    return question, unicode_text(answers[answer], f"answer {answer} of {where}")


def _sentence(text: Any, end: str = "?") -> str:
    """Return the files' lower-case texts have no mark at their end."""
    text = str(text).strip()
    return text if not text or text[-1] in ".?!" else text + end
