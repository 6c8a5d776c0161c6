"""POPE: `{"question_id", "image", "text", "label"}` (Li et al., EMNLP 2023), as JSON lines or as one array.

The authors' files about COCO are JSON lines. Their files about A-OKVQA (also COCO's images) and GQA (Visual Genome's)
are arrays.
"""

from collections.abc import Iterator

from pipelines.sources.collection import id_of_file
from pipelines.sources.records import (
    DUPLICATE_ID,
    WRONG_VALUE,
    BadAnnotation,
    BadRecord,
    QuestionRecord,
    id_field,
    text_field,
)
from pipelines.sources.streams import objects


def read_questions(annotations: str, collection: str | None = None) -> Iterator[QuestionRecord | BadRecord]:
    """Yield questions in the order of the file; the one answer is "yes" or "no".

    Args:
        annotations: a file, such as coco_pope_random.json.
        collection: of the images; None: derived from the file names, see `id_of_file`.

    Raises:
        UserError: the file is missing, or is neither an array nor JSON lines.
    """
    seen: set[str] = set()
    for where, entry in objects(annotations):
        image_id = None
        try:
            if isinstance(entry, BadAnnotation):
                raise entry
            image_id = id_of_file(text_field(entry, "image", where), collection)
            question_id = id_field(entry, "question_id", where)
            if question_id in seen:
                raise BadAnnotation(DUPLICATE_ID, f"{where}: question {question_id} was there before")
            seen.add(question_id)
            label = text_field(entry, "label", where).lower()
            if label not in ("yes", "no"):
                raise BadAnnotation(WRONG_VALUE, f"'label' of {where} is {label!r}, neither yes nor no")
            text = text_field(entry, "text", where)
            yield QuestionRecord(question_id, image_id, "pope", "image", text, (label,))
        except BadAnnotation as error:
            yield error.record(image_id)
