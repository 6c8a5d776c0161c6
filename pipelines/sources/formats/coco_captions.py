"""COCO captions: `{"images": [...], "annotations": [{"image_id", "caption"}]}`, as in captions_val2017.json.

Format: https://cocodataset.org/#format-data
"""

from collections.abc import Iterator

from pipelines.core.errors import UserError
from pipelines.sources.formats.coco_instances import image_entries
from pipelines.sources.grouping import RowsByKey, add_captions
from pipelines.sources.ids import SeenIds
from pipelines.sources.records import (
    NO_CAPTION,
    UNKNOWN_IMAGE,
    BadAnnotation,
    BadRecord,
    ImageRecord,
)


def read_images(annotations: str | None, images: str, split: str | None) -> Iterator[ImageRecord | BadRecord]:
    """Yield images in the order of the file, each with all its captions.

    A caption that cannot be used becomes a bad record, and its image keeps the others. An image without a usable
    caption becomes a bad record too.

    Args:
        annotations: the captions file.
        images: the folder that `file_name` is relative to.
        split: stored with every image.

    Raises:
        UserError: the file is missing, is not JSON, or has another format.
    """
    if annotations is None:
        raise UserError("coco_captions needs an annotation file; set annotations.")
    # The file is read twice: its captions refer to images by id and may come before or after them.
    captions = RowsByKey()
    yield from add_captions(captions, annotations, "annotations", "caption")
    listed = SeenIds()
    for record in image_entries(annotations, images, split, "coco_captions", listed):
        if isinstance(record, BadRecord):
            yield record
            continue
        texts = captions.get(record.image_id)
        if not texts:
            yield BadAnnotation(NO_CAPTION, "no usable caption").record(record.image_id, record.uri)
            continue
        yield ImageRecord(**{**vars(record), "captions": tuple(texts)})
    for image_id, text in captions.items():
        if image_id not in listed:
            yield BadAnnotation(UNKNOWN_IMAGE, f"caption of an image that is not listed: {text[:80]}").record(image_id)
