"""Image ids that name their collection, because COCO's 9, Visual Genome's 9 and nocaps' 9 are three images.

An id that is only a number belongs to COCO. Ids of other collections begin with the collection: "vg/9", "nocaps/9".
"""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from pipelines.core.errors import UserError
from pipelines.sources.records import WRONG_VALUE, BadAnnotation, BadRecord, ImageRecord, QuestionRecord

COCO, VISUAL_GENOME, VISDIAL = "coco", "visual_genome", "visdial"
_PREFIXES = {COCO: "", VISUAL_GENOME: "vg/"}
_COLLECTION = re.compile(r"[A-Za-z0-9][\w.+-]*")
# COCO: COCO_val2014_000000542145 (2014), 000000542145 (2017) and other files with such names. The three zeros exclude
# bar codes of products. VisDial: VisualDialog_val2018_000000284024. GQA: 2405722 and n161313.
_COCO_NAME = re.compile(r"(?!VisualDialog_)(?:\w*_)?(000\d{9})")
_VISDIAL_NAME = re.compile(r"VisualDialog_\w+_(\d{12})")
_VISUAL_GENOME_NAME = re.compile(r"n?\d{1,11}")
R = TypeVar("R", ImageRecord, QuestionRecord)


def prefix(collection: str | None) -> str:
    """Return the first part of a collection's ids: "nocaps/"; empty for COCO and for None, which means COCO."""
    return "" if collection is None else _PREFIXES.get(collection, f"{collection}/")


def check_collection(collection: str | None) -> None:
    """Check that a collection's name can be part of an id.

    Raises:
        UserError: the name has characters that an id may not have.
    """
    if collection is not None and not _COLLECTION.fullmatch(collection):
        raise UserError(f"collection is {collection!r}; use only letters, digits and _ . + -, for example nocaps.")


def coco_number(name: str) -> str | None:
    """Return COCO's number in a file name: "COCO_val2014_000000000042.jpg" → "42"; None for other names."""
    match = _COCO_NAME.fullmatch(_stem(name))
    return str(int(match[1])) if match else None


def visdial_id(name: str) -> str | None:
    """Return the id of a VisDial image: "VisualDialog_val2018_000000284024.jpg" → "visdial/284024"; else None."""
    match = _VISDIAL_NAME.fullmatch(_stem(name))
    return f"visdial/{int(match[1])}" if match else None


def id_of_file(name: str, collection: str | None = None) -> str:
    """Return the id of an image from its file name, for files of questions that identify images by file name.

    "000000542145.jpg" → "542145", "VisualDialog_val2018_000000284024.jpg" → "visdial/284024", "2405722.jpg" →
    "vg/2405722". Any other name is the id itself, as in a folder of images.

    Args:
        name: of the file.
        collection: the collection that the name must belong to; None: derived from the name.

    Raises:
        BadAnnotation: the name is not a name of the collection.
    """
    if collection not in (None, COCO, VISUAL_GENOME, VISDIAL):
        return f"{collection}/{name}"
    if collection in (None, COCO) and (number := coco_number(name)):
        return number
    if collection in (None, VISDIAL) and (number := visdial_id(name)):
        return number
    if collection in (None, VISUAL_GENOME) and _VISUAL_GENOME_NAME.fullmatch(_stem(name)):
        return f"vg/{_stem(name)}"
    if collection is None:
        return name
    raise BadAnnotation(WRONG_VALUE, f"the image {name} is not named as those of the collection {collection} are")


def named_alike(first: str, second: str) -> bool:
    """Return whether two file names can belong to copies of one image. Folders and suffixes are ignored.

    COCO's names of 2014 and 2017 with the same number are alike.
    """
    numbers = coco_number(first), coco_number(second)
    return numbers[0] == numbers[1] if None not in numbers else _stem(first) == _stem(second)


def of_collection(records: Iterator[R | BadRecord], collection: str | None) -> Iterator[R | BadRecord]:
    """Yield the records of a reader whose ids are numbers, with the collection's prefix before each id."""
    begin = prefix(collection)
    for record in records:
        if not begin or record.image_id is None:
            yield record
        else:
            yield replace(record, image_id=f"{begin}{record.image_id}")


def _stem(name: str) -> str:
    return os.path.splitext(name.rsplit("/", 1)[-1])[0]
