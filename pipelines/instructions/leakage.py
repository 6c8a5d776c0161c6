"""Images of evaluation splits, known by id and by content, so that training rows about them can be kept out.

An id counts across collections where a file says that two pictures are one (`QuestionRecord.same_as`): RefCOCO's val
images lie in COCO's train, and half of Visual Genome's pictures are COCO's. A copy under another name is found by the
SHA-256 of its bytes; a picture that was encoded again is not.
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


def count_evaluation_images(folder: str, sets: Sequence[InstructionSet]) -> int:
    """Images of evaluation splits, over all sets."""
    return len(
        {image_id for entry in sets for image_id in _read(folder, evaluation_name(entry))["image_id"].to_pylist()}
    )


def join_evaluation(folder: str, sets: Sequence[InstructionSet]) -> int:
    """Write all sets' evaluation images with their digests as one table; returns how many digests there are."""
    of_image: dict[tuple[str, str | None], str] = {}
    for entry in sets:
        for row in _read(folder, evaluation_name(entry)).to_pylist():
            of_image.setdefault((row["image_id"], row["file_name"]), row["set"])
    images = sorted(of_image, key=lambda image: (image[0], image[1] or ""))
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
        "set": [of_image[image] for image in images],
        "digest": digests,
    }
    write_parquet(folder, FILE, pa.table(rows, schema=_TABLE))
    return sum(value is not None for value in digests)


def _digest_of(picture: Picture | None, file_name: str | None) -> bytes | None:
    return None if picture is None or is_another(picture, file_name) else picture.digest


def _digests_in(entry: InstructionSet, wanted: set[str]) -> dict[str, bytes]:
    """Return the digests of the wanted images that lie in a set's own folder."""
    found: dict[str, bytes] = {}
    kind = question_source(entry.kind).folder
    collection = entry.collection if kind == "folder" else None
    for image in read_images(kind, None, entry.images or "", None, collection):
        if isinstance(image, ImageRecord) and image.image_id in wanted:
            try:
                found[image.image_id] = hashlib.sha256(read_image_bytes(image.uri)).digest()
            except BadImage:
                continue  # it is known by its id still
    return found


def _read(folder: str, name: str) -> pa.Table:
    return read_file(storage.join(folder, name))


class EvaluationImages:
    """The table in memory: evaluation splits are small beside what is trained on.

    Args:
        folder: the instructions step's folder.
    """

    def __init__(self, folder: str) -> None:
        rows = _read(folder, FILE).to_pylist()
        self._of_id: dict[str, list[tuple[str | None, str]]] = {}
        for row in rows:
            self._of_id.setdefault(row["image_id"], []).append((row["file_name"], row["set"]))
        self._of_digest: dict[bytes, str] = {row["digest"]: row["set"] for row in rows if row["digest"] is not None}

    def find(self, record: QuestionRecord, picture: Picture) -> tuple[How, str] | None:
        """How a record's image is known to be one of an evaluation split, and of which set; None where it is not."""
        for name, of_set in self._of_id.get(record.image_id, []):
            if not is_another(picture, name):
                return "id", of_set
        for _, of_set in self._of_id.get(record.same_as or "", []):
            return "same_picture", of_set
        if picture.digest is not None and picture.digest in self._of_digest:
            return "content", self._of_digest[picture.digest]
        return None


@functools.lru_cache(maxsize=1)
def open_evaluation(folder: str) -> EvaluationImages:
    """Return the evaluation images of a step's folder, read once a process."""
    return EvaluationImages(folder)
