"""OCR-VQA: questions about book covers, `{"1934930…": {"questions", "answers", "split", …}}` (Mishra et al. 2019).

Format: dataset.json of https://ocr-vqa.github.io. Images are KEY.jpg (or with the suffix of their imageURL).
"""

from collections.abc import Iterator

from pipelines.sources.records import (
    EMPTY_TEXT,
    WRONG_VALUE,
    BadAnnotation,
    BadRecord,
    QuestionRecord,
    field,
    texts_field,
    unicode_text,
)
from pipelines.sources.streams import object_entries

_SPLITS = {1: "train", 2: "val", 3: "test"}


def image_id_of(key: str) -> str:
    """Return the id of a cover: "1934930003" → "ocrvqa/1934930003"."""
    return f"ocrvqa/{key}"


def read_questions(annotations: str, split: str | None) -> Iterator[QuestionRecord | BadRecord]:
    """Yield questions in the order of the file, each with its one answer.

    Args:
        annotations: dataset.json.
        split: read only covers of this split: train, val or test (1, 2, 3 in the file); None: all.

    Raises:
        UserError: the file is missing, is not JSON, or has another format.
    """
    for key, entry in object_entries(annotations):
        where, image_id = f"cover {key}", image_id_of(key)
        try:
            unicode_text(key, "a cover's key")
            number = field(entry, "split", int, where)
            if number not in _SPLITS:
                raise BadAnnotation(WRONG_VALUE, f"'split' of {where} is {number}, not 1, 2 or 3")
            if split is not None and _SPLITS[number] != split:
                continue
            questions, answers = texts_field(entry, "questions", where), texts_field(entry, "answers", where)
            if len(questions) != len(answers):
                raise BadAnnotation(WRONG_VALUE, f"{where} has {len(questions)} questions, but {len(answers)} answers")
        except BadAnnotation as error:
            yield error.record(image_id)
            continue
        for position, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            if not question.strip() or not answer.strip():
                yield BadAnnotation(EMPTY_TEXT, f"question {position} of {where} or its answer is empty").record(
                    image_id
                )
                continue
            yield QuestionRecord(
                f"{key}-{position}",
                image_id,
                "vqa",
                "image",
                question.strip(),
                (answer.strip(),),
                split=_SPLITS[number],
            )
