"""A-OKVQA: a list of questions, each with four choices and ten direct answers (Schwenk et al. 2022)."""

from collections.abc import Iterator

from pipelines.sources.records import (
    DUPLICATE_ID,
    NO_ANSWER,
    WRONG_VALUE,
    BadAnnotation,
    BadRecord,
    QuestionRecord,
    field,
    id_field,
    text_field,
    texts_field,
)
from pipelines.sources.streams import array_elements


def read_questions(annotations: str, split: str | None) -> Iterator[QuestionRecord | BadRecord]:
    """Yield questions in the order of the file. Those of a test split have no answers and no correct choice.

    Args:
        annotations: the file, such as aokvqa_v1p0_val.json.
        split: read only rows of this split; None: all.

    Raises:
        UserError: the file is missing, is not JSON, or has another format.
    """
    seen: set[str] = set()
    for number, entry in enumerate(array_elements(annotations, None)):
        where, image_id = f"row {number}", None
        try:
            image_id = id_field(entry, "image_id", where)
            row_split = str(field(entry, "split", str, where))
            if split is not None and row_split != split:
                continue
            question_id = id_field(entry, "question_id", where)
            if question_id in seen:
                raise BadAnnotation(DUPLICATE_ID, f"{where}: question {question_id} was there before")
            seen.add(question_id)
            choices = texts_field(entry, "choices", where)
            # The published test split has neither answers nor correct choices.
            hidden = row_split == "test" and "correct_choice_idx" not in entry
            correct = None if hidden else int(field(entry, "correct_choice_idx", int, where))
            if len(choices) < 2 or (correct is not None and not 0 <= correct < len(choices)):
                raise BadAnnotation(WRONG_VALUE, f"{where}: choice {correct} of {len(choices)} choices")
            answers = () if hidden else texts_field(entry, "direct_answers", where)
            if not hidden and not answers:
                raise BadAnnotation(NO_ANSWER, f"{where} has an empty list of direct answers")
            yield QuestionRecord(
                sample_id=question_id,
                image_id=image_id,
                task="vqa",
                level="image",
                text=text_field(entry, "question", where),
                answers=answers,
                choices=choices,
                correct_choice=correct,
                difficult=bool(entry.get("difficult_direct_answer", False)),
                split=row_split,
            )
        except BadAnnotation as error:
            yield error.record(image_id)
