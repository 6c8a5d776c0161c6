"""A format of a user: JSON lines of birds, `{"file": "sparrow.jpg", "question": "…", "answer": "…"}`."""

from collections.abc import Iterator

from pipelines.sources import (
    BadRecord,
    ImageRecord,
    ImageSource,
    QuestionRecord,
    QuestionSource,
    register_image_source,
    register_question_source,
)
from pipelines.sources.records import BadAnnotation, image_uri, text_field
from pipelines.sources.streams import json_lines


def read_images(annotations: str | None, images: str, split: str | None) -> Iterator[ImageRecord | BadRecord]:
    """Yield an image per line."""
    for record in read_questions(annotations or ""):
        if isinstance(record, QuestionRecord):
            uri = image_uri(images, record.image_id.removeprefix("birds/"))
            yield ImageRecord(record.image_id, uri, None, None, split, "birds", ())


def read_questions(annotations: str) -> Iterator[QuestionRecord | BadRecord]:
    """Yield a question per line."""
    for number, entry in json_lines(annotations):
        where = f"line {number}"
        try:
            if isinstance(entry, BadAnnotation):
                raise entry
            image_id, text = f"birds/{text_field(entry, 'file', where)}", text_field(entry, "question", where)
            yield QuestionRecord(str(number), image_id, "vqa", "image", text, (text_field(entry, "answer", where),))
        except BadAnnotation as error:
            yield error.record()


register_image_source("bird_list", ImageSource(read_images))
register_question_source("birds", QuestionSource(lambda files: read_questions(files.required()), tasks=("vqa",)))
