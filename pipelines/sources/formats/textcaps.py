"""TextCaps: `{"data": [{"image_id", "caption_str", …}]}`, one row per caption.

Format: TextCaps_0.1_train.json (Sidorov et al. 2020). Images are OpenImages', named by their id; `images` is the
folder with the JPEG files of the split.
"""

from collections.abc import Iterator

from pipelines.core.errors import UserError
from pipelines.sources.grouping import RowsByKey, add_captions
from pipelines.sources.records import (
    NO_CAPTION,
    BadAnnotation,
    BadRecord,
    ImageRecord,
    image_uri,
    is_unicode,
    size_field,
)
from pipelines.sources.streams import array_elements


def read_images(annotations: str | None, images: str, split: str | None) -> Iterator[ImageRecord | BadRecord]:
    """Yield images in the order of their first caption, each with all its captions.

    Raises:
        UserError: the file is missing, is not JSON, or has another format.
    """
    if annotations is None:
        raise UserError("textcaps needs an annotation file; set annotations.")
    # The file is read twice: the captions of an image need not be in successive rows.
    captions = RowsByKey()
    yield from add_captions(captions, annotations, "data", "caption_str")
    seen: set[str] = set()
    for number, entry in enumerate(array_elements(annotations, "data")):
        where = f"data[{number}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("image_id"), str | int):
            continue  # `add_captions` has yielded it as a bad record
        image_id = str(entry["image_id"]).strip()
        if image_id in seen or not image_id or not is_unicode(image_id):
            continue
        seen.add(image_id)
        uri = image_uri(images, f"{image_id}.jpg")
        try:
            width, height = size_field(entry, "image_width", where), size_field(entry, "image_height", where)
            texts = captions.get(image_id)
            if not texts:
                raise BadAnnotation(NO_CAPTION, "no usable caption")
            yield ImageRecord(image_id, uri, width, height, split, "textcaps", tuple(texts))
        except BadAnnotation as error:
            yield error.record(image_id, uri)
