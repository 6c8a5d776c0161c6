"""A folder of images without annotations."""

import os
from collections.abc import Callable, Iterator

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.sources.collection import COCO, coco_number, prefix, visdial_id
from pipelines.sources.ids import SeenIds
from pipelines.sources.kinds import ImageReader
from pipelines.sources.records import DUPLICATE_ID, BadAnnotation, BadRecord, ImageRecord

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


def read_images(
    annotations: str | None, images: str, split: str | None, collection: str | None = None
) -> Iterator[ImageRecord | BadRecord]:
    """Return every image file in the folder, by name, without sizes and captions.

    The id of a file with a name of COCO (000000000285.jpg, COCO_val2014_000000000285.jpg) is COCO's number, so that
    COCO's questions refer to it. The id of any other file is its path in the folder. In another collection the id is
    the collection and the path.

    Args:
        annotations: must be None.
        images: the folder.
        split: stored with every image.
        collection: that the images belong to; None: COCO, or derived from the names.

    Raises:
        UserError: `annotations` is set, the folder is missing, or it has no image file.
    """
    name_of = _own_name if collection in (None, COCO) else lambda path: f"{prefix(collection)}{path}"
    return _read(annotations, images, split, "folder", name_of)


def named_by(source: str, name_of: Callable[[str], str | None]) -> ImageReader:
    """Return a reader of a folder that gives each file the id that the questions of a collection refer to.

    Args:
        source: stored with every image.
        name_of: returns the id for a path in the folder, or None if the file is not an image of the collection.
    """

    def read(annotations: str | None, images: str, split: str | None) -> Iterator[ImageRecord | BadRecord]:
        return _read(annotations, images, split, source, name_of)

    return read


def stem(path: str) -> str:
    """Return the name of a file without folders and suffix."""
    return os.path.splitext(os.path.basename(path))[0]


def _own_name(path: str) -> str:
    return coco_number(path) or visdial_id(path) or path


def _hint(image_id: str) -> str:
    return "; name a collection where these are not COCO's pictures" if image_id.isdigit() else ""


def _read(
    annotations: str | None, images: str, split: str | None, source: str, name_of: Callable[[str], str | None]
) -> Iterator[ImageRecord | BadRecord]:
    if annotations is not None:
        raise UserError("The kind folder reads no annotations; leave annotations empty, or set the kind of the file.")
    root = storage.absolute(images)
    if not storage.is_folder(root):
        raise UserError(f"The image folder {images} does not exist; check images.")
    seen = SeenIds()
    for uri in storage.list_files(root):
        # By suffix only: opening a million files on an object store to look at their content would take hours.
        if os.path.splitext(uri)[1].lower() not in IMAGE_SUFFIXES:
            continue
        name = uri[len(root) :].lstrip("/")
        image_id = name_of(name)
        if image_id is None:
            continue
        if not seen.add(image_id):
            yield BadAnnotation(DUPLICATE_ID, f"{name}: another file has the id {image_id}{_hint(image_id)}").record(
                image_id, uri
            )
            continue
        yield ImageRecord(image_id, uri, None, None, split, source, ())
    if not seen:
        raise UserError(f"{images} has no image file ({', '.join(IMAGE_SUFFIXES)}).")
