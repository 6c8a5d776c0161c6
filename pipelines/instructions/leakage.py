"""Images of evaluation splits, recognized by id and by content, so that training rows about them can be kept out.

Ids are compared across collections where an annotation file says that two pictures are the same
(`QuestionRecord.same_as`): the val images of RefCOCO are in COCO's train split, and half of Visual Genome's pictures
are COCO's. A copy under another name is recognized by the SHA-256 of its bytes. A picture that was encoded again is
not.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import Literal

import pyarrow as pa

from pipelines.core import storage
from pipelines.core.parquet import read_file, write_parquet
from pipelines.instructions.config import InstructionSet
from pipelines.instructions.images import ImageIndex, Picture, is_another
from pipelines.instructions.questions import EVALUATION, evaluation_name
from pipelines.sources import question_source, read_images
from pipelines.sources.images import BadImage, read_image_bytes
from pipelines.sources.records import ImageRecord, QuestionRecord

FILE = "source/evaluation.parquet"
_TABLE = pa.schema([*EVALUATION, pa.field("digest", pa.binary())])

How = Literal["id", "same_picture", "content"]
"""How an image was recognized: by its id, by the id of the same picture in another collection, by its bytes."""


def count_evaluation_images(folder: str, sets: Sequence[InstructionSet]) -> int:
    """Return the number of images in evaluation splits, over all sets."""
    return len(
        {image_id for entry in sets for image_id in _read(folder, evaluation_name(entry))["image_id"].to_pylist()}
    )


def join_evaluation(folder: str, sets: Sequence[InstructionSet]) -> int:
    """Write the evaluation images of all sets with their digests as one table, and return the number of digests.

    Args:
        folder: the folder of the step, with the joined index of images.
        sets: all sets.
    """
    set_by_image: dict[tuple[str, str | None], str] = {}
    for entry in sets:
        for row in _read(folder, evaluation_name(entry)).to_pylist():
            set_by_image.setdefault((row["image_id"], row["file_name"]), row["set"])
    images = sorted(set_by_image, key=lambda image: (image[0], image[1] or ""))
    pictures = ImageIndex(folder).find([image_id for image_id, _ in images])
    digests = [_digest_of(picture, name) for picture, (_, name) in zip(pictures, images, strict=True)]
    for entry in sets:
        if entry.images is not None:
            lacking = {image_id for (image_id, _), digest in zip(images, digests, strict=True) if digest is None}
            own = _digests_in(entry, lacking)
            digests = [digest or own.get(image_id) for (image_id, _), digest in zip(images, digests, strict=True)]
    rows = {
        "image_id": [image_id for image_id, _ in images],
        "file_name": [name for _, name in images],
        "set": [set_by_image[image] for image in images],
        "digest": digests,
    }
    write_parquet(folder, FILE, pa.table(rows, schema=_TABLE))
    return sum(value is not None for value in digests)


def _digest_of(picture: Picture | None, file_name: str | None) -> bytes | None:
    return None if picture is None or is_another(picture, file_name) else picture.digest


def _digests_in(entry: InstructionSet, image_ids: set[str]) -> dict[str, bytes]:
    """Return the digests of those images that are in the set's folder of images, by id."""
    digests: dict[str, bytes] = {}
    kind = question_source(entry.kind).folder
    collection = entry.collection if kind == "folder" else None
    for image in read_images(kind, None, entry.images or "", None, collection):
        if isinstance(image, ImageRecord) and image.image_id in image_ids:
            try:
                digests[image.image_id] = hashlib.sha256(read_image_bytes(image.uri)).digest()
            except BadImage:
                continue  # the image is still recognized by its id
    return digests


def _read(folder: str, name: str) -> pa.Table:
    return read_file(storage.join(folder, name))


class EvaluationImages:
    """The table of evaluation images in memory, where it fits: evaluation splits are small compared to training sets.

    Args:
        folder: the folder of the step.
    """

    def __init__(self, folder: str) -> None:
        rows = _read(folder, FILE).to_pylist()
        self._sets_by_id: dict[str, list[tuple[str | None, str]]] = {}
        for row in rows:
            self._sets_by_id.setdefault(row["image_id"], []).append((row["file_name"], row["set"]))
        self._set_by_digest: dict[bytes, str] = {row["digest"]: row["set"] for row in rows if row["digest"] is not None}

    def find(self, record: QuestionRecord, picture: Picture) -> tuple[How, str] | None:
        """Return how a record's image was recognized as an evaluation image, and the set it is in; None if it is not.

        Args:
            record: a training record.
            picture: its image.
        """
        for file_name, name in self._sets_by_id.get(record.image_id, []):
            if not is_another(picture, file_name):
                return "id", name
        for _, name in self._sets_by_id.get(record.same_as or "", []):
            return "same_picture", name
        if picture.digest is not None and picture.digest in self._set_by_digest:
            return "content", self._set_by_digest[picture.digest]
        return None


@functools.lru_cache(maxsize=1)
def open_evaluation(folder: str) -> EvaluationImages:
    """Return the evaluation images in the folder of a step; a process reads them once."""
    return EvaluationImages(folder)
