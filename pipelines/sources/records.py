"""The records that readers of annotation files yield, and the checked fields that they read from an entry."""

import math
from dataclasses import dataclass
from typing import Any, Final

from pipelines.core import storage

STAGE: Final = "annotation"

# All values of `BadRecord.reason`.
BROKEN_LINE: Final = "broken_json_line"  # a line of a JSON-lines file is not a JSON object
MISSING_KEY: Final = "missing_key"
WRONG_TYPE: Final = "wrong_type"
WRONG_VALUE: Final = "wrong_value"  # the right type, but a value that the format does not allow
DUPLICATE_ID: Final = "duplicate_id"  # a second image or question with an id; the first is kept
EMPTY_TEXT: Final = "empty_text"  # a caption, question or expression without text
NO_CAPTION: Final = "no_caption"  # an image of a caption file without a usable caption
NO_ANSWER: Final = "no_answer"  # a question without an annotation, or an annotation without answers
UNKNOWN_IMAGE: Final = "unknown_image"  # refers to an image that the file does not list
UNKNOWN_REGION: Final = "unknown_region"  # refers to a box that the file does not list
UNKNOWN_QUESTION: Final = "unknown_question"  # the annotation of a question that the file does not list
MISSING_FILE: Final = "missing_file"  # of a format with a file per image
BOX_WITHOUT_AREA: Final = "box_without_area"
BOX_OUTSIDE_IMAGE: Final = "box_outside_image"
REASONS: Final = (
    BROKEN_LINE,
    MISSING_KEY,
    WRONG_TYPE,
    WRONG_VALUE,
    DUPLICATE_ID,
    EMPTY_TEXT,
    NO_CAPTION,
    NO_ANSWER,
    UNKNOWN_IMAGE,
    UNKNOWN_REGION,
    UNKNOWN_QUESTION,
    MISSING_FILE,
    BOX_WITHOUT_AREA,
    BOX_OUTSIDE_IMAGE,
)

TRAINING_SPLITS: Final = ("train", "restval")  # prefixes of split names; Karpathy's `restval` is for training

_BOX_OVERSHOOT = 2.0  # pixels that a box may exceed its image by, because annotators round

Xywh = tuple[float, float, float, float]
Phrase = tuple[str, Xywh | None]


@dataclass(frozen=True)
class ImageRecord:
    """A row of `pipelines.core.tables.IMAGES`."""

    image_id: str
    uri: str
    width: int | None
    height: int | None
    split: str | None
    source: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class QuestionRecord:
    """A question about an image, or about a region of one.

    Attributes:
        sample_id: unique in its source.
        image_id: as in the image's row.
        task: the default task of the source: caption, vqa, rec, …
        level: image or region.
        text: the question, or the referring expression; empty for captions.
        answers: the answers of all annotators, or all captions; empty for test splits without answers.
        box: x, y, width, height in pixels, or None.
        choices: of a multiple-choice question, else empty.
        correct_choice: index into `choices`, or None.
        region_id: equal for all expressions of one region, else None.
        difficult: hard to answer without choices; A-OKVQA excludes such questions from direct-answer scores.
        split: the split of the row in its file, or None if the file has no splits.
        same_as: the id of the same image in COCO, if the file has it, else None. Half of Visual Genome's images are
            COCO's.
        phrases: of a grounded caption: the pieces of the sentence, each with its box (pixels) or None.
        file_name: of the image, if the file has it. It shows when two images of different collections share an id.
    """

    sample_id: str
    image_id: str
    task: str
    level: str
    text: str
    answers: tuple[str, ...]
    box: Xywh | None = None
    choices: tuple[str, ...] = ()
    correct_choice: int | None = None
    region_id: str | None = None
    difficult: bool = False
    split: str | None = None
    same_as: str | None = None
    phrases: tuple[Phrase, ...] = ()
    file_name: str | None = None

    @property
    def evaluates(self) -> bool:
        """Whether the row belongs to a split for evaluation: any split that is not for training."""
        return self.split is not None and not self.split.startswith(TRAINING_SPLITS)


@dataclass(frozen=True)
class BadRecord:
    """An annotation that cannot be used, with the reason: a row of `pipelines.core.tables.QUARANTINE`."""

    image_id: str | None
    uri: str | None
    stage: str
    reason: str
    detail: str


class BadAnnotation(ValueError):
    """An annotation that cannot be used. Its reader yields it as a `BadRecord` and continues with the next one.

    The detail is a column of the quarantine table, whose digest is part of later steps' hashes: do not reword details.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(_escaped(detail))
        self.reason = reason

    def record(self, image_id: str | None = None, uri: str | None = None) -> BadRecord:
        """Return the row for the quarantine table."""
        image_id, uri = (None if name is None else _escaped(name) for name in (image_id, uri))
        return BadRecord(image_id, uri, STAGE, self.reason, str(self))


def _escaped(text: str) -> str:
    """Return the text with escapes for lone surrogates, because the quarantine table is UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def field(entry: Any, key: str, kinds: type | tuple[type, ...], where: str) -> Any:
    """Return `entry[key]` after checking it.

    Args:
        entry: an object of a JSON file.
        key: of the value.
        kinds: the allowed types; bool does not count as int.
        where: the name of the entry in messages, such as `images[3]`.

    Raises:
        BadAnnotation: the entry is not an object, the key is missing, or the value has another type or is a text that
            is not Unicode.
    """
    if not isinstance(entry, dict):
        raise BadAnnotation(WRONG_TYPE, f"{where} is {type(entry).__name__}, not an object")
    if key not in entry:
        raise BadAnnotation(MISSING_KEY, f"{where} has no {key!r}")
    value = entry[key]
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        names = " or ".join(kind.__name__ for kind in allowed)
        raise BadAnnotation(WRONG_TYPE, f"{key!r} of {where} is {type(value).__name__}, not {names}")
    return unicode_text(value, f"{key!r} of {where}") if isinstance(value, str) else value


def is_unicode(text: str) -> bool:
    """Return whether a text has no lone surrogate (half of a pair, or a byte that was not UTF-8)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def unicode_text(text: str, what: str) -> str:
    """Return the text unchanged.

    Args:
        text: to check.
        what: its name in the message.

    Raises:
        BadAnnotation: the text has half of a surrogate pair, or bytes that are not UTF-8.
    """
    if not is_unicode(text):
        raise BadAnnotation(WRONG_TYPE, f"{what} is not UTF-8 text")
    return text


def text_field(entry: Any, key: str, where: str) -> str:
    """Return a text that is not empty, without surrounding blanks.

    Raises:
        BadAnnotation: as `field`, or the text is empty.
    """
    text = str(field(entry, key, str, where)).strip()
    if not text:
        raise BadAnnotation(EMPTY_TEXT, f"{key!r} of {where} is empty")
    return text


def id_field(entry: Any, key: str, where: str) -> str:
    """Return an id as text: 309 → "309".

    Raises:
        BadAnnotation: as `field`, or the id is empty.
    """
    value = str(field(entry, key, (int, str), where)).strip()
    if not value:
        raise BadAnnotation(WRONG_VALUE, f"{key!r} of {where} is empty")
    return value


def size_field(entry: Any, key: str, where: str) -> int | None:
    """Return a width or height in pixels; None if the entry has none.

    Raises:
        BadAnnotation: the value is not a positive whole number.
    """
    if isinstance(entry, dict) and entry.get(key) is None:
        return None
    value = field(entry, key, int, where)
    if not 0 < value < 2**31:
        raise BadAnnotation(WRONG_VALUE, f"{key!r} of {where} is {value}, not a number of pixels")
    return int(value)


def texts_field(entry: Any, key: str, where: str) -> tuple[str, ...]:
    """Return a list of texts.

    Raises:
        BadAnnotation: as `field`, or an element is not text.
    """
    values = field(entry, key, list, where)
    if any(not isinstance(value, str) for value in values):
        raise BadAnnotation(WRONG_TYPE, f"{key!r} of {where} holds something that is not text")
    return tuple(unicode_text(value, f"a text in {key!r} of {where}") for value in values)


def box_field(entry: Any, key: str, where: str) -> Xywh:
    """Return a box x, y, width, height in pixels.

    Raises:
        BadAnnotation: the value is not four finite numbers, or width or height is not positive (swapped corners).
    """
    values = field(entry, key, list, where)
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(values) != 4 or len(numbers) != 4 or not all(math.isfinite(value) for value in numbers):
        raise BadAnnotation(WRONG_TYPE, f"{key!r} of {where} is {values}, not four numbers x, y, width, height")
    x, y, width, height = (float(value) for value in numbers)
    if width <= 0 or height <= 0:
        raise BadAnnotation(BOX_WITHOUT_AREA, f"{key!r} of {where} is {values}: width and height must be positive")
    return x, y, width, height


def fit_box(box: Xywh, width: int, height: int) -> Xywh:
    """Return the part of a box inside its image. A box may exceed the image by two pixels (rounding of annotators).

    Raises:
        BadAnnotation: the box exceeds the image by more, so that it belongs to another image or another scale.
    """
    x1, y1, x2, y2 = box[0], box[1], box[0] + box[2], box[1] + box[3]
    excess = max(-x1, -y1, x2 - width, y2 - height)
    if excess > _BOX_OVERSHOOT:
        raise BadAnnotation(BOX_OUTSIDE_IMAGE, f"box {list(box)} reaches {excess:g} pixels out of {width} x {height}")
    if excess <= 0:
        return box
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if x2 <= x1 or y2 <= y1:
        raise BadAnnotation(BOX_OUTSIDE_IMAGE, f"box {list(box)} has no area inside {width} x {height}")
    return x1, y1, x2 - x1, y2 - y1


def image_uri(images: str, file_name: str) -> str:
    """Return the URI of an image file under its root folder (a path, `s3://…` or `gs://…`)."""
    return storage.join(storage.absolute(images), file_name)
