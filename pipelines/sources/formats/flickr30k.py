"""Flickr30K's captions: Karpathy's `dataset_flickr30k.json`, which has splits, or `*.token` of the release.

Formats: `{"images": [{"filename", "split", "sentences": [{"raw"}]}]}` (Karpathy & Fei-Fei 2015), and lines
`1000092795.jpg#0<TAB>Two young guys …` of results_20130124.token (Young et al. 2014).
"""

from collections.abc import Iterator

from pipelines.core.errors import UserError
from pipelines.sources.grouping import RowsByKey
from pipelines.sources.records import (
    DUPLICATE_ID,
    EMPTY_TEXT,
    NO_CAPTION,
    WRONG_VALUE,
    BadAnnotation,
    BadRecord,
    ImageRecord,
    field,
    image_uri,
    text_field,
)
from pipelines.sources.streams import array_elements, text_lines


def image_id_of(name: str) -> str:
    """Return the id of a Flickr30K file or number: "1000092795.jpg" → "flickr30k/1000092795"."""
    return f"flickr30k/{name.removesuffix('.jpg')}"


def read_images(annotations: str | None, images: str, split: str | None) -> Iterator[ImageRecord | BadRecord]:
    """Yield images in the order of the file, each with its captions.

    Args:
        annotations: the file.
        images: the folder flickr30k-images.
        split: read only images of this split (train, val, test). A `.token` file has no splits: it is stored with all.

    Raises:
        UserError: the file is missing or has another format.
    """
    if annotations is None:
        raise UserError("flickr30k needs an annotation file; set annotations.")
    reader = _from_json if annotations.endswith(".json") else _from_tokens
    yield from reader(annotations, images, split)


def _from_json(annotations: str, images: str, split: str | None) -> Iterator[ImageRecord | BadRecord]:
    seen: set[str] = set()
    for number, entry in enumerate(array_elements(annotations, "images")):
        where, image_id, uri = f"images[{number}]", None, None
        try:
            name = text_field(entry, "filename", where)
            image_id, uri = image_id_of(name), image_uri(images, name)
            row_split = text_field(entry, "split", where)
            if split is not None and row_split != split:
                continue
            if image_id in seen:
                raise BadAnnotation(DUPLICATE_ID, f"{where}: image {image_id} was there before")
            seen.add(image_id)
            sentences = field(entry, "sentences", list, where)
        except BadAnnotation as error:
            yield error.record(image_id, uri)
            continue
        captions = []
        for sentence in sentences:
            try:
                captions.append(text_field(sentence, "raw", f"a sentence of {where}"))
            except BadAnnotation as error:
                yield error.record(image_id, uri)
        yield _record(image_id, uri, row_split, captions)


def _from_tokens(annotations: str, images: str, split: str | None) -> Iterator[ImageRecord | BadRecord]:
    captions, names = RowsByKey(), dict[str, None]()  # a dict as an ordered set: images in the order of the file
    for number, line in text_lines(annotations):
        try:
            if isinstance(line, BadAnnotation):
                raise line
            key, tab, caption = line.partition("\t")
            name, mark, _ = key.partition("#")
            if not (tab and mark and name):
                raise BadAnnotation(WRONG_VALUE, f"line {number} is not FILE#NUMBER<tab>caption: {line[:80]}")
            if not caption.strip():
                raise BadAnnotation(EMPTY_TEXT, f"line {number} has no caption")
            names[name] = None
            captions.add(name, caption.strip())
        except BadAnnotation as error:
            yield error.record()
    if not names:
        raise UserError(f"{annotations} has no line FILE#NUMBER<tab>caption: it has another format.")
    for name in names:
        yield _record(image_id_of(name), image_uri(images, name), split, captions.get(name))


def _record(image_id: str, uri: str, split: str | None, captions: list[str]) -> ImageRecord | BadRecord:
    if not captions:
        return BadAnnotation(NO_CAPTION, "no usable caption").record(image_id, uri)
    return ImageRecord(image_id, uri, None, None, split, "flickr30k", tuple(captions))
