"""Reading of image and question sources by the `kind` of a configuration; importing it registers the formats."""

from collections.abc import Iterator

import pipelines.sources.formats  # noqa: F401  registers the formats of the project
from pipelines.core.errors import UserError
from pipelines.sources.collection import check_collection, of_collection
from pipelines.sources.kinds import (
    IMAGE_SOURCES,
    QUESTION_SOURCES,
    ImageSource,
    QuestionFiles,
    QuestionSource,
    image_source,
    question_source,
    register_image_source,
    register_question_source,
)
from pipelines.sources.records import BadRecord, ImageRecord, QuestionRecord

__all__ = [
    "IMAGE_SOURCES", "QUESTION_SOURCES", "BadRecord", "ImageRecord", "ImageSource", "QuestionFiles", "QuestionRecord",
    "QuestionSource", "image_source", "question_source", "read_images", "read_questions", "register_image_source",
    "register_question_source",
]  # fmt: skip


def read_images(
    kind: str, annotations: str | None, images: str, split: str | None = None, collection: str | None = None
) -> Iterator[ImageRecord | BadRecord]:
    """Return the images of a source as a stream.

    Args:
        kind: see `image_source`.
        annotations: the annotation file (path or URI); None for `folder`.
        images: the root folder of the image files (path or URI).
        split: stored with every image.
        collection: the collection of the numbers in the file, or of the folder; None: COCO.

    Raises:
        UserError: the kind is unknown, its ids already name their collection and `collection` is set, or a file is
            missing or of another format.
    """
    source = image_source(kind)
    check_collection(collection)
    if source.ids == "names":
        return source.read(annotations, images, split, collection=collection)
    if collection is not None and source.ids == "own":
        raise _has_collection(kind)
    return of_collection(source.read(annotations, images, split), collection)


def read_questions(kind: str, files: QuestionFiles) -> Iterator[QuestionRecord | BadRecord]:
    """Return the questions of a source as a stream.

    Args:
        kind: see `question_source`.
        files: its files; the default path of a second file is filled in.

    Raises:
        UserError: the kind is unknown, its ids already name their collection and `files.collection` is set, or a file
            is missing or of another format.
    """
    source = question_source(kind)
    check_collection(files.collection)
    if files.collection is not None and source.ids == "own":
        raise _has_collection(kind)
    records = source.read(source.complete(files))
    return of_collection(records, files.collection) if source.ids == "numbers" else records


def _has_collection(kind: str) -> UserError:
    return UserError(f"The ids of {kind} already name their collection; leave collection empty.")
