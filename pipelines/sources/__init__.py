"""Readers of images and questions from annotation files, selected by the `kind` of a configuration.

An image source yields `ImageRecord`s, a question source `QuestionRecord`s, in the order of the file and as a stream.
For an entry that cannot be used it yields a `BadRecord` with the reason, and continues with the next entry.

* `formats`: a module per format, and their registrations. `kinds` explains how to add a format from outside.
* `records`, `collection`: the records, and the collection that an image's id belongs to.
* `images`, `embedded`: image files, and images in a column of a table.
* `boxes`, `grounding`: the notations of boxes and of grounded text.
* `fetching`: downloads of public files.

Importing one module of this package does not import the formats: a served model reads images and boxes, and the
libraries of the formats are not installed there.
"""

from typing import TYPE_CHECKING

from pipelines.core.lazy import lazy_names

if TYPE_CHECKING:
    from pipelines.sources.readers import (
        IMAGE_SOURCES,
        QUESTION_SOURCES,
        BadRecord,
        ImageRecord,
        ImageSource,
        QuestionFiles,
        QuestionRecord,
        QuestionSource,
        image_source,
        question_source,
        read_images,
        read_questions,
        register_image_source,
        register_question_source,
    )

__all__ = [
    "IMAGE_SOURCES",
    "QUESTION_SOURCES",
    "BadRecord",
    "ImageRecord",
    "ImageSource",
    "QuestionFiles",
    "QuestionRecord",
    "QuestionSource",
    "image_source",
    "question_source",
    "read_images",
    "read_questions",
    "register_image_source",
    "register_question_source",
]
__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "readers"))
