"""Flickr30K Entities: captions whose phrases have boxes (Plummer et al. 2015).

Format: https://github.com/BryanPlummer/flickr30k_entities. A folder with Sentences/ID.txt (`[/EN#12/people A man] in
[/EN#13/clothing a hat]`), Annotations/ID.xml (boxes by entity), and train.txt, val.txt and test.txt with the ids.

Boxes are in pixels counted from 1. The authors' reader subtracts 1 from all four numbers and uses the result as
corners: xmin 1 and xmax 10 become 0 and 9. This module does the same, so that scores are comparable.

A phrase with several boxes gets the box around all of them, as in the scoring of phrase grounding. Entities that are a
scene or have no box (and entity 0, which is not visible) are plain text.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.sources.formats.flickr30k import image_id_of
from pipelines.sources.records import (
    BOX_WITHOUT_AREA,
    MISSING_FILE,
    WRONG_TYPE,
    WRONG_VALUE,
    BadAnnotation,
    BadRecord,
    Phrase,
    QuestionRecord,
    Xywh,
)
from pipelines.sources.streams import open_stream, text_lines

SPLITS = ("train", "val", "test")
_PHRASE = re.compile(r"\[/EN#(\d+)(?:/[^\s/\]]+)+ ([^\]]+)\]")


def read_captions(annotations: str, split: str | None) -> Iterator[QuestionRecord | BadRecord]:
    """Yield a record per sentence with its pieces, each with its box or None.

    Args:
        annotations: the folder.
        split: train, val or test; None: all sentences in the folder.

    Raises:
        UserError: the folder is missing or has another format.
    """
    for sample_id, image_id, own_split, pieces in _sentences(annotations, split):
        if isinstance(pieces, BadRecord):
            yield pieces
            continue
        text = "".join(piece for piece, _ in pieces)
        yield QuestionRecord(
            sample_id, image_id, "grounded_caption", "region", text, (text,), split=own_split, phrases=pieces
        )


def read_phrases(annotations: str, split: str | None) -> Iterator[QuestionRecord | BadRecord]:
    """Yield a record per phrase with a box, for phrase grounding.

    Raises:
        UserError: the folder is missing or has another format.
    """
    for sample_id, image_id, own_split, pieces in _sentences(annotations, split):
        if isinstance(pieces, BadRecord):
            yield pieces
            continue
        for number, (text, box) in enumerate(pieces):
            if box is not None:
                yield QuestionRecord(
                    f"{sample_id}-{number}", image_id, "rec", "region", text, (), box=box,
                    region_id=f"{sample_id}-{number}", split=own_split,
                )  # fmt: skip


def _sentences(folder: str, split: str | None) -> Iterator[tuple[str, str, str | None, tuple[Phrase, ...] | BadRecord]]:
    """Yield sample id, image id, split and pieces of every sentence, image by image."""
    for name, own_split in _names(folder, split):
        image_id = image_id_of(name)
        sentences, annotations = (
            storage.join(folder, *parts) for parts in (("Sentences", f"{name}.txt"), ("Annotations", f"{name}.xml"))
        )
        try:
            for path in (sentences, annotations):
                if not storage.exists(path):
                    raise BadAnnotation(MISSING_FILE, f"{path} does not exist")
            boxes = _boxes(annotations)
        except BadAnnotation as error:
            yield name, image_id, own_split, error.record(image_id)
            continue
        for number, line in text_lines(sentences):
            sample_id = f"{name}-{number}"
            try:
                if isinstance(line, BadAnnotation):
                    raise line
                yield sample_id, image_id, own_split, _pieces(line, boxes, f"line {number} of {name}.txt")
            except BadAnnotation as error:
                yield sample_id, image_id, own_split, error.record(image_id)


def _names(folder: str, split: str | None) -> list[tuple[str, str | None]]:
    """Return the images of a split in the order of its file, or all images by name, each with its split."""
    if not storage.is_folder(folder):
        raise UserError(
            f"{folder} is not a folder; set annotations to Flickr30K Entities' folder with Sentences and Annotations."
        )
    if split is not None and split not in SPLITS:
        raise UserError(f"Flickr30K Entities has no split {split!r}; it has {', '.join(SPLITS)}.")
    splits: dict[str, str] = {}
    for name in [split] if split else SPLITS:
        path = storage.join(folder, f"{name}.txt")
        if split or storage.exists(path):
            splits.update({str(line): name for _, line in text_lines(path)})
    if split:
        return list(splits.items())
    files = storage.list_files(storage.join(folder, "Sentences"), ".txt")
    if not files:
        raise UserError(f"{folder} has no Sentences/*.txt; set annotations to the folder of Flickr30K Entities.")
    stems = [file.rsplit("/", 1)[-1].removesuffix(".txt") for file in files]
    return [(stem, splits.get(stem)) for stem in stems]


def _pieces(line: str, boxes: Mapping[str, Xywh], where: str) -> tuple[Phrase, ...]:
    """Return the pieces of a sentence in order: plain texts, and phrases with their boxes.

    Raises:
        BadAnnotation: a phrase has no closing bracket.
    """
    pieces: list[Phrase] = []
    end = 0
    for match in _PHRASE.finditer(line):
        pieces += [(line[end : match.start()], None), (match[2], boxes.get(match[1]))]
        end = match.end()
    pieces.append((line[end:], None))
    if any("[/EN#" in text for text, _ in pieces):
        raise BadAnnotation(WRONG_VALUE, f"{where} has a phrase that does not end: {line[:80]}")
    return tuple((text, box) for text, box in pieces if text)


def _boxes(path: str) -> dict[str, Xywh]:
    """Return the box around all boxes of each entity, in pixels.

    Raises:
        BadAnnotation: the file is not XML, or a box has no area.
    """
    with open_stream(path) as stream:
        content = stream.read()
    try:
        root = ElementTree.fromstring(content)
        corners: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        for item in root.iter("object"):
            element = item.find("bndbox")
            if element is None:
                continue
            box = tuple(float(element.findtext(key, "")) - 1 for key in ("xmin", "ymin", "xmax", "ymax"))
            if box[2] <= box[0] or box[3] <= box[1]:
                raise BadAnnotation(BOX_WITHOUT_AREA, f"{path}: a box {list(box)} has no area")
            for name in item.iterfind("name"):
                corners[(name.text or "").strip()].append(box)
    except (ElementTree.ParseError, ValueError) as error:
        if isinstance(error, BadAnnotation):
            raise
        raise BadAnnotation(WRONG_TYPE, f"{path} is not an annotation of this format: {error}") from error
    return {name: _around(boxes) for name, boxes in corners.items()}


def _around(boxes: list[tuple[float, ...]]) -> Xywh:
    x1, y1 = min(box[0] for box in boxes), min(box[1] for box in boxes)
    x2, y2 = max(box[2] for box in boxes), max(box[3] for box in boxes)
    return x1, y1, x2 - x1, y2 - y1
