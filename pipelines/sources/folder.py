"""A folder of images without annotations."""

import os
import re
from collections.abc import Callable, Iterator

from pipelines import storage
from pipelines.errors import UserError
from pipelines.sources.ids import SeenIds
from pipelines.sources.records import DUPLICATE_ID, BadAnnotation, BadRecord, ImageRecord, id_of_file

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
ImageReader = Callable[[str | None, str, str | None], Iterator[ImageRecord | BadRecord]]
_COCO_NAME = re.compile(r"\d{12}\.\w+$")


def read_images(annotations: str | None, images: str, split: str | None) -> Iterator[ImageRecord | BadRecord]:
    """Every image file under the folder, by name; sizes and captions are unknown.

    The id of a file named like COCO's (twelve digits at the end) is that number, so that COCO's questions find it;
    any other file's id is its path inside the folder.

    Raises:
        UserError: an annotation file was given, the folder is missing, or no image file is in it.
    """
    return _read(annotations, images, split, "folder", _own_name)


def named_by(source: str, name_of: Callable[[str], str | None]) -> ImageReader:
    """A reader of a collection's folder, whose files have the ids that the collection's questions refer to.

    Args:
        source: stored with every image.
        name_of: a file's path inside the folder → its id; None: no image of the collection.
    """

    def read(annotations: str | None, images: str, split: str | None) -> Iterator[ImageRecord | BadRecord]:
        return _read(annotations, images, split, source, name_of)

    return read


def stem(path: str) -> str:
    """The name of a file without folders and ending."""
    return os.path.splitext(os.path.basename(path))[0]


def _own_name(path: str) -> str:
    return id_of_file(path) if _COCO_NAME.search(path) else path


def _read(
    annotations: str | None, images: str, split: str | None, source: str, name_of: Callable[[str], str | None]
) -> Iterator[ImageRecord | BadRecord]:
    if annotations is not None:
        raise UserError("A folder source reads no annotations; leave annotations empty or choose the file's own kind.")
    root = storage.absolute(images)
    if not storage.is_folder(root):
        raise UserError(f"The image folder {images} does not exist; check images.")
    seen = SeenIds()
    for uri in storage.list_files(root):
        if os.path.splitext(uri)[1].lower() not in IMAGE_SUFFIXES:
            continue
        name = uri[len(root) :].lstrip("/")
        image_id = name_of(name)
        if image_id is None:
            continue
        if not seen.add(image_id):
            yield BadAnnotation(DUPLICATE_ID, f"{name}: another file has the id {image_id}").record(image_id, uri)
            continue
        yield ImageRecord(image_id, uri, None, None, split, source, ())
    if not seen:
        raise UserError(f"{images} holds no image file ({', '.join(IMAGE_SUFFIXES)}).")
