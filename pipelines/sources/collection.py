"""Which collection a picture's number is of: COCO's 9, Visual Genome's 9 and nocaps' 9 are three pictures.

A number alone is COCO's. Other collections' ids begin with the collection: "vg/9", "nocaps/9".
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
# COCO_val2014_000000542145 (2014) and 000000542145 (2017), and what others name alike; the digits of an article's bar
# code begin with no three zeros. VisualDialog_val2018_000000284024. GQA's 2405722 and n161313.
_COCO_NAME = re.compile(r"(?!VisualDialog_)(?:\w*_)?(000\d{9})")
_VISDIAL_NAME = re.compile(r"VisualDialog_\w+_(\d{12})")
_VISUAL_GENOME_NAME = re.compile(r"n?\d{1,11}")
R = TypeVar("R", ImageRecord, QuestionRecord)


def prefix(collection: str | None) -> str:
    """What the ids of a collection begin with; empty for COCO, which is also the default."""
    return "" if collection is None else _PREFIXES.get(collection, f"{collection}/")


def check_collection(collection: str | None) -> None:
    """Refuse a name that cannot stand in an id.

    Raises:
        UserError: says what to write instead.
    """
    if collection is not None and not _COLLECTION.fullmatch(collection):
        raise UserError(f"collection {collection!r} must be letters, digits and any of _ . + - only, such as nocaps.")


def coco_number(name: str) -> str | None:
    """COCO's number of a picture by its file's name: "COCO_val2014_000000000042.jpg" → "42"; None for another name."""
    match = _COCO_NAME.fullmatch(_stem(name))
    return str(int(match[1])) if match else None


def visdial_id(name: str) -> str | None:
    """The id of VisDial's own pictures: "VisualDialog_val2018_000000284024.jpg" → "visdial/284024"; else None."""
    match = _VISDIAL_NAME.fullmatch(_stem(name))
    return f"visdial/{int(match[1])}" if match else None


def id_of_file(name: str, collection: str | None = None) -> str:
    """Return the id of a picture that a file of questions knows by its name.

    "000000542145.jpg" → "542145", "VisualDialog_val2018_000000284024.jpg" → "visdial/284024", "2405722.jpg" →
    "vg/2405722"; another name is the id itself, as in a folder of pictures.

    Args:
        name: of the file.
        collection: the only one that the name may be of; None: the name tells.

    Raises:
        BadAnnotation: the name is none of the collection's.
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
    """Whether two files can be copies of one picture, by their names without folders and endings.

    COCO's names of 2014 and of 2017 are alike.
    """
    numbers = coco_number(first), coco_number(second)
    return numbers[0] == numbers[1] if None not in numbers else _stem(first) == _stem(second)


def of_collection(records: Iterator[R | BadRecord], collection: str | None) -> Iterator[R | BadRecord]:
    """Return the records of a reader of numbers, with ids that begin with their collection."""
    begin = prefix(collection)
    for record in records:
        if not begin or record.image_id is None:
            yield record
        else:
            yield replace(record, image_id=f"{begin}{record.image_id}")


def _stem(name: str) -> str:
    return os.path.splitext(name.rsplit("/", 1)[-1])[0]
