"""COCO instances: images with their sizes, and boxes by category, as in instances_val2017.json.

Format: https://cocodataset.org/#format-data
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.core.errors import UserError
from pipelines.sources.ids import SeenIds
from pipelines.sources.records import (
    DUPLICATE_ID,
    UNKNOWN_IMAGE,
    WRONG_VALUE,
    BadAnnotation,
    BadRecord,
    ImageRecord,
    Xywh,
    box_field,
    fit_box,
    id_field,
    image_uri,
    size_field,
    text_field,
)
from pipelines.sources.streams import array_elements


@dataclass(frozen=True)
class InstanceBox:
    """An annotated object; `box` is x, y, width, height in pixels, inside its image."""

    annotation_id: str
    image_id: str
    box: Xywh


def read_images(annotations: str | None, images: str, split: str | None) -> Iterator[ImageRecord | BadRecord]:
    """Yield images in the order of the file, without captions.

    Raises:
        UserError: the file is missing, is not JSON, or has another format.
    """
    if annotations is None:
        raise UserError("coco_instances needs an annotation file; set annotations.")
    yield from image_entries(annotations, images, split, "coco_instances", SeenIds())


def image_entries(
    annotations: str, images: str, split: str | None, source: str, listed: SeenIds
) -> Iterator[ImageRecord | BadRecord]:
    """Yield the `images` array of a COCO document. A second image with an id becomes a bad record.

    Args:
        annotations: the file.
        images: the folder that `file_name` is relative to.
        split: stored with every image.
        source: stored with every image.
        listed: every id of the array is added to it.
    """
    for number, entry in enumerate(array_elements(annotations, "images")):
        where, image_id, uri = f"images[{number}]", None, None
        try:
            image_id = id_field(entry, "id", where)
            # Added even if the rest of the entry is bad, so that its captions do not count as of an unknown image.
            if not listed.add(image_id):
                raise BadAnnotation(DUPLICATE_ID, f"{where}: image {image_id} was there before")
            uri = image_uri(images, text_field(entry, "file_name", where))
            width, height = size_field(entry, "width", where), size_field(entry, "height", where)
            yield ImageRecord(image_id, uri, width, height, split, source, ())
        except BadAnnotation as error:
            yield error.record(image_id, uri)


def read_boxes(annotations: str, annotation_ids: frozenset[str] | None = None) -> Iterator[InstanceBox | BadRecord]:
    """Yield boxes in the order of the file.

    A box that exceeds its image by at most two pixels is clipped; any other box outside its image is a bad record.

    Args:
        annotations: the instances file.
        annotation_ids: of the boxes to read; None: all except crowds, whose boxes contain several objects.

    Raises:
        UserError: the file is missing, is not JSON, or has another format.
    """
    # Three passes over the file: boxes need the sizes of their images, to be clipped, and a
    # box of a category that the file does not list is damaged.
    sizes: dict[str, tuple[int, int] | None] = {}
    for image in image_entries(annotations, "", None, "coco_instances", SeenIds()):
        if isinstance(image, ImageRecord):
            sizes[image.image_id] = (image.width, image.height) if image.width and image.height else None
    categories: set[str] = set()
    for number, entry in enumerate(array_elements(annotations, "categories")):
        where = f"categories[{number}]"
        try:
            text_field(entry, "name", where)
            categories.add(id_field(entry, "id", where))
        except BadAnnotation as error:
            yield error.record()
    for number, entry in enumerate(array_elements(annotations, "annotations")):
        where, image_id = f"annotations[{number}]", None
        try:
            annotation_id = id_field(entry, "id", where)
            if entry.get("iscrowd") if annotation_ids is None else annotation_id not in annotation_ids:
                continue
            image_id = id_field(entry, "image_id", where)
            if image_id not in sizes:
                raise BadAnnotation(UNKNOWN_IMAGE, f"{where} is of an image that is not listed")
            category = id_field(entry, "category_id", where)
            if category not in categories:
                raise BadAnnotation(WRONG_VALUE, f"{where} has category {category}, which is not listed")
            box, size = box_field(entry, "bbox", where), sizes[image_id]
            yield InstanceBox(annotation_id, image_id, fit_box(box, *size) if size else box)
        except BadAnnotation as error:
            yield error.record(image_id)
