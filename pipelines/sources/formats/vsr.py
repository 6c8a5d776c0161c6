"""Visual Spatial Reasoning: JSON lines `{"image", "caption", "label", "relation", …}` (Liu et al. 2023).

Format: https://github.com/cambridgeltl/visual-spatial-reasoning. Its pictures are COCO's, train and val of 2017 alike;
the splits are files (random or zeroshot; train, dev, test).
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
    """Statements in the file's order; the one answer is "true" or "false". A row's id is its line number.

    Args:
        annotations: one of the files.
        collection: whose pictures the statements are about; None: their names tell, see `id_of_file`.

    Raises:
        UserError: the file is missing or not JSON lines.
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
