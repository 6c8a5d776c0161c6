"""VQAv2 and OK-VQA: a questions file and an annotations file, joined by question id.

Format: https://visualqa.org/download.html. One document that holds both arrays is read as well.
"""

import json
from collections.abc import Iterator
from typing import Any

from pipelines.sources.grouping import RowsByKey
from pipelines.sources.records import (
    DUPLICATE_ID,
    NO_ANSWER,
    UNKNOWN_QUESTION,
    BadAnnotation,
    BadRecord,
    QuestionRecord,
    field,
    id_field,
    text_field,
)
from pipelines.sources.streams import array_elements


def read_questions(annotations: str | None, questions: str) -> Iterator[QuestionRecord | BadRecord]:
    """Yield questions in the order of the file, each with its ten answers in the order of the annotators.

    Args:
        annotations: the annotations file; None for test splits, whose questions have no answers.
        questions: the questions file; it may be the same file.

    Raises:
        UserError: a file is missing, is not JSON, or has another format.
    """
    # Answers are kept as JSON texts in Arrow buffers: VQAv2's lists of ten Python strings would take hundreds of MB.
    answers = RowsByKey()
    if annotations is not None:
        for number, entry in enumerate(array_elements(annotations, "annotations")):
            where, image_id = f"annotations[{number}]", None
            try:
                image_id = id_field(entry, "image_id", where)
                answers.add(id_field(entry, "question_id", where), json.dumps(_answers(entry, where)))
            except BadAnnotation as error:
                yield error.record(image_id)
    seen: set[str] = set()
    for number, entry in enumerate(array_elements(questions, "questions")):
        where, image_id = f"questions[{number}]", None
        try:
            image_id = id_field(entry, "image_id", where)
            question_id = id_field(entry, "question_id", where)
            if question_id in seen:
                raise BadAnnotation(DUPLICATE_ID, f"{where}: question {question_id} was there before")
            seen.add(question_id)
            text = text_field(entry, "question", where)
            annotated = answers.get(question_id)
            if annotations is not None and not annotated:
                raise BadAnnotation(NO_ANSWER, f"{where}: question {question_id} has no usable annotation")
            texts = tuple(json.loads(annotated[0])) if annotated else ()
            yield QuestionRecord(question_id, image_id, "vqa", "image", text, texts)
        except BadAnnotation as error:
            yield error.record(image_id)
    for question_id, _ in answers.items():
        if question_id not in seen:
            yield BadAnnotation(UNKNOWN_QUESTION, f"annotation of question {question_id}, which is not listed").record()


def _answers(entry: Any, where: str) -> list[str]:
    """Return the answers of all annotators, unchanged: the metric normalizes them."""
    entries = field(entry, "answers", list, where)
    if not entries:
        raise BadAnnotation(NO_ANSWER, f"{where} has an empty list of answers")
    return [str(field(answer, "answer", str, f"an answer of {where}")) for answer in entries]
