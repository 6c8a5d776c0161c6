"""Visual Spatial Reasoning: JSON lines `{"image", "caption", "label", "relation", …}` (Liu et al. 2023).

Format: https://github.com/cambridgeltl/visual-spatial-reasoning. The images are COCO's, of
train and of val of 2017. Each split is a file (random or zeroshot; train, dev, test).
"""

from collections.abc import Iterator

from pipelines.sources.collection import id_of_file
from pipelines.sources.records import (
    WRONG_VALUE,
    BadAnnotation,
    BadRecord,
    QuestionRecord,
    field,
    text_field,
)
from pipelines.sources.streams import json_lines


def read_questions(annotations: str, collection: str | None = None) -> Iterator[QuestionRecord | BadRecord]:
    """Yield statements in the order of the file; the one answer is "true" or "false", the id is the line number.

    Args:
        annotations: the file of a split.
        collection: of the images; None: derived from the file names, see `id_of_file`.

    Raises:
        UserError: the file is missing or is not JSON lines.
    """
    for number, entry in json_lines(annotations):
        where, image_id = f"line {number}", None
        try:
            if isinstance(entry, BadAnnotation):
                raise entry
            image_id = id_of_file(text_field(entry, "image", where), collection)
            label = field(entry, "label", int, where)
            if label not in (0, 1):
                raise BadAnnotation(WRONG_VALUE, f"'label' of {where} is {label}, neither 0 nor 1")
            text = text_field(entry, "caption", where)
            yield QuestionRecord(str(number), image_id, "statement", "image", text, ("true" if label else "false",))
        except BadAnnotation as error:
            yield error.record(image_id)
