"""The formats of annotation files. To add one, write a module here and register it in this file.

The registration is one call: `register_image_source` for a list of images, `register_question_source` for questions.
"""

from collections.abc import Iterator
from dataclasses import replace

from pipelines.core import storage
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
from pipelines.sources.kinds import (
    ImageReader,
    ImageSource,
    QuestionFiles,
    QuestionReader,
    QuestionSource,
    register_image_source,
    register_question_source,
)
from pipelines.sources.records import BadRecord, QuestionRecord


def _captions_as_questions(reader: ImageReader) -> QuestionReader:
    """Return a reader of captioning rows: one per image, whose answers are all captions of the image."""

    def read(files: QuestionFiles) -> Iterator[QuestionRecord | BadRecord]:
        for record in reader(files.required(), "", files.split):
            if isinstance(record, BadRecord):
                yield replace(record, uri=None)  # the folder of the images is not known
            else:
                name, file = record.image_id, record.uri.rsplit("/", 1)[-1]
                yield QuestionRecord(
                    name, name, "caption", "image", "", record.captions, split=record.split, file_name=file
                )

    return read


def _default_pid_splits(annotations: str) -> str:
    return storage.join(storage.absolute(annotations).rpartition("/")[0], "pid_splits.json")


register_image_source("coco_captions", ImageSource(coco_captions.read_images, "numbers"))
register_image_source("coco_instances", ImageSource(coco_instances.read_images, "numbers"))
register_image_source("textcaps", ImageSource(textcaps.read_images, "numbers"))
register_image_source("flickr30k", ImageSource(flickr30k.read_images))
register_image_source("visual_genome", ImageSource(visual_genome.read_images))
register_image_source("folder", ImageSource(folder.read_images, "names"))
# Folders without annotations, with the ids that the questions of a collection refer to.
register_image_source(
    "flickr30k_folder",
    ImageSource(folder.named_by("flickr30k", lambda path: flickr30k.image_id_of(folder.stem(path)))),
)
register_image_source(
    "gqa_folder", ImageSource(folder.named_by("gqa", lambda path: visual_genome.image_id_of(folder.stem(path))))
)
register_image_source("iconqa_folder", ImageSource(folder.named_by("iconqa", iconqa.image_id_of)))
register_image_source(
    "ocrvqa_folder", ImageSource(folder.named_by("ocrvqa", lambda path: ocrvqa.image_id_of(folder.stem(path))))
)

register_question_source(
    "coco_captions", QuestionSource(_captions_as_questions(coco_captions.read_images), ("caption",), ids="numbers")
)
register_question_source(
    "textcaps", QuestionSource(_captions_as_questions(textcaps.read_images), ("caption",), ids="numbers")
)
register_question_source(
    "flickr30k",
    QuestionSource(
        _captions_as_questions(flickr30k.read_images), ("caption",), uses=("split",), folder="flickr30k_folder"
    ),
)
register_question_source(
    "vqa",
    QuestionSource(
        lambda files: vqa.read_questions(files.annotations, files.questions or files.required()),
        ("vqa",),
        uses=("questions",),
        ids="numbers",
    ),
)
register_question_source(
    "aokvqa",
    QuestionSource(
        lambda files: aokvqa.read_questions(files.required(), files.split),
        ("vqa", "vqa_choice"),
        uses=("split",),
        ids="numbers",
    ),
)
register_question_source(
    "gqa",
    QuestionSource(
        lambda files: gqa.read_questions(files.required(), files.image_data),
        ("vqa",),
        uses=("image_data",),
        folder="gqa_folder",
    ),
)
register_question_source(
    "ocrvqa",
    QuestionSource(
        lambda files: ocrvqa.read_questions(files.required(), files.split),
        ("vqa",),
        uses=("split",),
        folder="ocrvqa_folder",
    ),
)
register_question_source(
    "vsr",
    QuestionSource(lambda files: vsr.read_questions(files.required(), files.collection), ("statement",), ids="names"),
)
register_question_source(
    "iconqa",
    QuestionSource(
        lambda files: iconqa.read_questions(files.required(), files.split, files.required("pid_splits")),
        ("vqa_choice", "vqa"),
        uses=("split", "pid_splits"),
        folder="iconqa_folder",
        default_file=("pid_splits", _default_pid_splits),
    ),
)
register_question_source("visdial", QuestionSource(lambda files: visdial.read_questions(files.required()), ("vqa",)))
register_question_source(
    "refcoco",
    QuestionSource(
        lambda files: refcoco.read_questions(files.required(), files.split, files.instances),
        ("rec", "reg"),
        uses=("instances", "split"),
        ids="numbers",
        default_file=("instances", refcoco.default_instances),
    ),
)
register_question_source(
    "visual_genome",
    QuestionSource(
        lambda files: visual_genome.read_questions(files.required(), files.required("image_data")),
        ("rec", "reg"),
        uses=("image_data",),
        folder="gqa_folder",
        default_file=("image_data", visual_genome.default_image_data),
    ),
)
register_question_source(
    "flickr30k_entities",
    QuestionSource(
        lambda files: flickr30k_entities.read_captions(files.required(), files.split),
        ("grounded_caption", "caption"),
        uses=("split",),
        folder="flickr30k_folder",
    ),
)
register_question_source(
    "flickr30k_phrases",
    QuestionSource(
        lambda files: flickr30k_entities.read_phrases(files.required(), files.split),
        ("rec", "reg"),
        uses=("split",),
        folder="flickr30k_folder",
    ),
)
register_question_source(
    "pope",
    QuestionSource(lambda files: pope.read_questions(files.required(), files.collection), ("pope",), ids="names"),
)
