"""Readers of annotation files, by the name of their format. To add one: a file here, a line in a catalog below.

An image source yields `ImageRecord`s, a question source `QuestionRecord`s, both in the file's order and as a stream;
what cannot be used comes as a `BadRecord` in between and stops nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.sources.collection import check_collection, of_collection
from pipelines.sources.formats import (
    aokvqa,
    coco_captions,
    coco_instances,
    flickr30k,
    flickr30k_entities,
    folder,
    gqa,
    iconqa,
    ocrvqa,
    pope,
    refcoco,
    textcaps,
    visdial,
    visual_genome,
    vqa,
    vsr,
)
from pipelines.sources.formats.folder import ImageReader
from pipelines.sources.records import BadRecord, ImageRecord, QuestionRecord

_NO_FILES = ("split", "collection")


@dataclass(frozen=True)
class QuestionFiles:
    """Where a question source's files are.

    Attributes:
        annotations: the file (Flickr30K Entities: the folder) with the answers; None for test splits of VQA.
        questions: VQA's questions, where they are in another file than the answers.
        instances: RefCOCO's boxes.
        image_data: Visual Genome's image_data.json.
        pid_splits: IconQA's pid_splits.json.
        split: only rows of this split, in files that say so.
        collection: whose pictures the numbers (or names) in the files are of; None: COCO's, or as the names tell.
    """

    annotations: str | None = None
    questions: str | None = None
    instances: str | None = None
    image_data: str | None = None
    pid_splits: str | None = None
    split: str | None = None
    collection: str | None = None

    def required(self, name: str = "annotations") -> str:
        """One of the files.

        Raises:
            UserError: it is not given.
        """
        path = getattr(self, name)
        if path is None:
            raise UserError(f"This kind of question set needs another file; set {name}.")
        return str(path)

    def paths(self) -> dict[str, str]:
        """Return the files that are given, by the name of their field."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _NO_FILES}
        return {name: path for name, path in named.items() if path}


@dataclass(frozen=True)
class QuestionSource:
    """A question format.

    Attributes:
        read: its reader.
        tasks: what its rows can be turned into, the usual task first.
        uses: the fields of `QuestionFiles` that mean something to it, beside `annotations`.
        folder: the image source that gives the files of a folder the ids that its questions refer to.
        ids: how its files name pictures: by numbers of a collection, by file names that the reader understands, or by
            ids that already tell the collection.
        beside: where a second file lies by default: its field, and its place by that of the annotations (None: not
            needed).
    """

    read: Callable[[QuestionFiles], Iterator[QuestionRecord | BadRecord]]
    tasks: tuple[str, ...]
    uses: tuple[str, ...] = ()
    folder: str = "folder"
    ids: Literal["numbers", "names", "own"] = "own"
    beside: tuple[str, Callable[[str], str | None]] | None = None

    def complete(self, files: QuestionFiles) -> QuestionFiles:
        """Return the files with the place of the second one filled in."""
        if self.beside is None or files.annotations is None or getattr(files, self.beside[0]) is not None:
            return files
        return replace(files, **{self.beside[0]: self.beside[1](files.annotations)})


def _as_captioning(reader: ImageReader) -> Callable[[QuestionFiles], Iterator[QuestionRecord | BadRecord]]:
    """Images with captions as questions whose answers are all captions."""

    def read(files: QuestionFiles) -> Iterator[QuestionRecord | BadRecord]:
        for found in reader(files.required(), "", files.split):
            if isinstance(found, BadRecord):
                yield replace(found, uri=None)  # where the images lie is not known here
            else:
                name, file = found.image_id, found.uri.rsplit("/", 1)[-1]
                yield QuestionRecord(
                    name, name, "caption", "image", "", found.captions, split=found.split, file_name=file
                )

    return read


def _pid_splits_beside(annotations: str) -> str:
    return storage.join(storage.absolute(annotations).rpartition("/")[0], "pid_splits.json")


IMAGE_SOURCES: Mapping[str, ImageReader] = {
    "coco_captions": coco_captions.read_images,
    "coco_instances": coco_instances.read_images,
    "textcaps": textcaps.read_images,
    "flickr30k": flickr30k.read_images,
    "visual_genome": visual_genome.read_images,
    "folder": folder.read_images,
    # Folders without annotations, whose files are named as the collections' questions need them.
    "flickr30k_folder": folder.named_by("flickr30k", lambda path: flickr30k.image_id_of(folder.stem(path))),
    "gqa_folder": folder.named_by("gqa", lambda path: visual_genome.image_id_of(folder.stem(path))),
    "iconqa_folder": folder.named_by("iconqa", iconqa.image_id_of),
    "ocrvqa_folder": folder.named_by("ocrvqa", lambda path: ocrvqa.image_id_of(folder.stem(path))),
}

# Of these, a setting tells the collection.
NUMBERED_IMAGES = ("coco_captions", "coco_instances", "textcaps")

QUESTION_SOURCES: Mapping[str, QuestionSource] = {
    "coco_captions": QuestionSource(_as_captioning(coco_captions.read_images), ("caption",), ids="numbers"),
    "textcaps": QuestionSource(_as_captioning(textcaps.read_images), ("caption",), ids="numbers"),
    "flickr30k": QuestionSource(
        _as_captioning(flickr30k.read_images), ("caption",), uses=("split",), folder="flickr30k_folder"
    ),
    "vqa": QuestionSource(
        lambda files: vqa.read_questions(files.annotations, files.questions or files.required()),
        ("vqa",),
        uses=("questions",),
        ids="numbers",
    ),
    "aokvqa": QuestionSource(
        lambda files: aokvqa.read_questions(files.required(), files.split),
        ("vqa", "vqa_choice"),
        uses=("split",),
        ids="numbers",
    ),
    "gqa": QuestionSource(
        lambda files: gqa.read_questions(files.required(), files.image_data),
        ("vqa",),
        uses=("image_data",),
        folder="gqa_folder",
    ),
    "ocrvqa": QuestionSource(
        lambda files: ocrvqa.read_questions(files.required(), files.split),
        ("vqa",),
        uses=("split",),
        folder="ocrvqa_folder",
    ),
    "vsr": QuestionSource(
        lambda files: vsr.read_questions(files.required(), files.collection), ("statement",), ids="names"
    ),
    "iconqa": QuestionSource(
        lambda files: iconqa.read_questions(files.required(), files.split, files.required("pid_splits")),
        ("vqa_choice", "vqa"),
        uses=("split", "pid_splits"),
        folder="iconqa_folder",
        beside=("pid_splits", _pid_splits_beside),
    ),
    "visdial": QuestionSource(lambda files: visdial.read_questions(files.required()), ("vqa",)),
    "refcoco": QuestionSource(
        lambda files: refcoco.read_questions(files.required(), files.split, files.instances),
        ("rec", "reg"),
        uses=("instances", "split"),
        ids="numbers",
        beside=("instances", refcoco.instances_beside),
    ),
    "visual_genome": QuestionSource(
        lambda files: visual_genome.read_questions(files.required(), files.required("image_data")),
        ("rec", "reg"),
        uses=("image_data",),
        folder="gqa_folder",
        beside=("image_data", visual_genome.image_data_beside),
    ),
    "flickr30k_entities": QuestionSource(
        lambda files: flickr30k_entities.read_captions(files.required(), files.split),
        ("grounded_caption", "caption"),
        uses=("split",),
        folder="flickr30k_folder",
    ),
    "flickr30k_phrases": QuestionSource(
        lambda files: flickr30k_entities.read_phrases(files.required(), files.split),
        ("rec", "reg"),
        uses=("split",),
        folder="flickr30k_folder",
    ),
    "pope": QuestionSource(
        lambda files: pope.read_questions(files.required(), files.collection), ("pope",), ids="names"
    ),
}


def read_images(
    kind: str, annotations: str | None, images: str, split: str | None = None, collection: str | None = None
) -> Iterator[ImageRecord | BadRecord]:
    """Return the images of a source, as a stream.

    Args:
        kind: a key of `IMAGE_SOURCES`.
        annotations: the annotation file (path or URI); None for `folder`.
        images: the root of the image files (path or URI).
        split: stored with every image.
        collection: whose pictures the numbers in the file are of, or the folder holds; None: COCO's.

    Raises:
        UserError: an unknown kind, a collection for a kind whose ids tell it, or a file that is missing or of another
            format.
    """
    if kind not in IMAGE_SOURCES:
        raise UserError(f"There is no image source {kind!r}; there are {', '.join(IMAGE_SOURCES)}.")
    check_collection(collection)
    if kind == "folder":
        return folder.read_images(annotations, images, split, collection)
    if collection is not None and kind not in NUMBERED_IMAGES:
        raise _tells_its_collection(kind)
    return of_collection(IMAGE_SOURCES[kind](annotations, images, split), collection)


def _tells_its_collection(kind: str) -> UserError:
    return UserError(f"The ids of {kind} tell their collection already; leave collection out.")


def question_source(kind: str) -> QuestionSource:
    """Return a question source by its name.

    Raises:
        UserError: an unknown kind.
    """
    if kind not in QUESTION_SOURCES:
        raise UserError(f"There is no question source {kind!r}; there are {', '.join(QUESTION_SOURCES)}.")
    return QUESTION_SOURCES[kind]


def read_questions(kind: str, files: QuestionFiles) -> Iterator[QuestionRecord | BadRecord]:
    """Return the questions of a source, as a stream.

    Raises:
        UserError: an unknown kind, a collection for a kind whose ids tell it, or a file that is missing or of another
            format.
    """
    source = question_source(kind)
    check_collection(files.collection)
    if files.collection is not None and source.ids == "own":
        raise _tells_its_collection(kind)
    records = source.read(source.complete(files))
    return of_collection(records, files.collection) if source.ids == "numbers" else records
