"""Readers of annotation files, by the name of their format. To add one: a file here, a line in a catalogue below.

An image source yields `ImageRecord`s, a question source `QuestionRecord`s, both in the file's order and as a stream;
what cannot be used comes as a `BadRecord` in between and stops nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from pipelines.errors import UserError
from pipelines.sources import aokvqa, coco_captions, coco_instances, folder, pope, refcoco, textcaps, vqa
from pipelines.sources.records import BadRecord, ImageRecord, QuestionRecord

ImageReader = Callable[[str | None, str, str | None], Iterator[ImageRecord | BadRecord]]


@dataclass(frozen=True)
class QuestionFiles:
    """Where a question source's files are.

    Attributes:
        annotations: the file with the answers; None for test splits of VQA.
        questions: VQA's questions, where they are in another file than the answers.
        instances: RefCOCO's boxes, where they are not in `instances.json` beside the refs.
        split: only rows of this split, in files that say so.
    """

    annotations: str | None = None
    questions: str | None = None
    instances: str | None = None
    split: str | None = None

    def required(self) -> str:
        """The annotation file.

        Raises:
            UserError: none is given.
        """
        if self.annotations is None:
            raise UserError("This kind of question set needs an annotation file; set annotations.")
        return self.annotations


@dataclass(frozen=True)
class QuestionSource:
    """A question format.

    Attributes:
        read: its reader.
        tasks: what its rows can be turned into, the usual task first.
        uses: the fields of `QuestionFiles` that mean something to it, beside `annotations`.
    """

    read: Callable[[QuestionFiles], Iterator[QuestionRecord | BadRecord]]
    tasks: tuple[str, ...]
    uses: tuple[str, ...] = ()


def _as_captioning(reader: ImageReader) -> Callable[[QuestionFiles], Iterator[QuestionRecord | BadRecord]]:
    """Images with captions as questions whose answers are all captions."""

    def read(files: QuestionFiles) -> Iterator[QuestionRecord | BadRecord]:
        for found in reader(files.required(), "", files.split):
            if isinstance(found, BadRecord):
                yield replace(found, uri=None)  # where the images lie is not known here
            else:
                yield QuestionRecord(found.image_id, found.image_id, "caption", "image", "", found.captions)

    return read


IMAGE_SOURCES: Mapping[str, ImageReader] = {
    "coco_captions": coco_captions.read_images,
    "coco_instances": coco_instances.read_images,
    "textcaps": textcaps.read_images,
    "folder": folder.read_images,
}

QUESTION_SOURCES: Mapping[str, QuestionSource] = {
    "coco_captions": QuestionSource(_as_captioning(coco_captions.read_images), ("caption",)),
    "textcaps": QuestionSource(_as_captioning(textcaps.read_images), ("caption",)),
    "vqa": QuestionSource(
        lambda files: vqa.read_questions(files.annotations, files.questions or files.required()),
        ("vqa",),
        uses=("questions",),
    ),
    "aokvqa": QuestionSource(
        lambda files: aokvqa.read_questions(files.required(), files.split), ("vqa", "vqa_choice"), uses=("split",)
    ),
    "refcoco": QuestionSource(
        lambda files: refcoco.read_questions(files.required(), files.split, files.instances),
        ("rec", "reg"),
        uses=("instances", "split"),
    ),
    "pope": QuestionSource(lambda files: pope.read_questions(files.required()), ("pope",)),
}


def read_images(
    kind: str, annotations: str | None, images: str, split: str | None = None
) -> Iterator[ImageRecord | BadRecord]:
    """The images of a source, as a stream.

    Args:
        kind: a key of `IMAGE_SOURCES`.
        annotations: the annotation file (path or URI); None for `folder`.
        images: the root of the image files (path or URI).
        split: stored with every image.

    Raises:
        UserError: an unknown kind, or a file that is missing or of another format.
    """
    if kind not in IMAGE_SOURCES:
        raise UserError(f"There is no image source {kind!r}; there are {', '.join(IMAGE_SOURCES)}.")
    return IMAGE_SOURCES[kind](annotations, images, split)


def question_source(kind: str) -> QuestionSource:
    """A question source by its name.

    Raises:
        UserError: an unknown kind.
    """
    if kind not in QUESTION_SOURCES:
        raise UserError(f"There is no question source {kind!r}; there are {', '.join(QUESTION_SOURCES)}.")
    return QUESTION_SOURCES[kind]


def read_questions(kind: str, files: QuestionFiles) -> Iterator[QuestionRecord | BadRecord]:
    """The questions of a source, as a stream.

    Raises:
        UserError: an unknown kind, or a file that is missing or of another format.
    """
    return question_source(kind).read(files)
