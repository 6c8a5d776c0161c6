"""COCO captions: `{"images": [...], "annotations": [{"image_id", "caption"}]}`, the format of captions_val2017.json.

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
    """Images in the file's order, each with all its captions in the file's order.

    A bad caption is a bad record and its image goes on with the others; an image left without any is bad too.

    Args:
        annotations: the captions file.
        images: the root that `file_name` is relative to.
        split: stored with every image.

    Raises:
        UserError: the file is missing, not JSON, or of another format.
    """
    if annotations is None:
        raise UserError("coco_captions needs an annotation file; set annotations.")
    captions = RowsByKey()
    yield from add_captions(captions, annotations, "annotations", "caption")
    known = SeenIds()
    for found in image_entries(annotations, images, split, "coco_captions", known):
        if isinstance(found, BadRecord):
            yield found
            continue
        texts = captions.get(found.image_id)
        if not texts:
            yield BadAnnotation(NO_CAPTION, "no usable caption").record(found.image_id, found.uri)
            continue
        yield ImageRecord(**{**vars(found), "captions": tuple(texts)})
    for image_id, text in captions.items():
        if image_id not in known:
            yield BadAnnotation(UNKNOWN_IMAGE, f"caption of an image that is not listed: {text[:80]}").record(image_id)
