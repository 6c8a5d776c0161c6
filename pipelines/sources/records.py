"""What every reader of annotation files yields: images, questions, and what could not be used, with its reason."""

import math
from dataclasses import dataclass
from typing import Any, Final

from pipelines.core import storage

STAGE: Final = "annotation"

# The closed vocabulary of `BadRecord.reason`.
BROKEN_LINE: Final = "broken_json_line"  # a line of a JSON-lines file is not a JSON object
MISSING_KEY: Final = "missing_key"
WRONG_TYPE: Final = "wrong_type"
WRONG_VALUE: Final = "wrong_value"  # right type, outside what the format allows
DUPLICATE_ID: Final = "duplicate_id"  # a second image or question of an id; the first one is kept
EMPTY_TEXT: Final = "empty_text"  # a caption, question or expression without a word
NO_CAPTION: Final = "no_caption"  # an image of a caption file that is left without any caption
NO_ANSWER: Final = "no_answer"  # a question without its annotation, or an annotation without answers
UNKNOWN_IMAGE: Final = "unknown_image"  # refers to an image that the file does not list
UNKNOWN_REGION: Final = "unknown_region"  # refers to a box that the file does not list
UNKNOWN_QUESTION: Final = "unknown_question"  # the annotation of a question that the file does not list
MISSING_FILE: Final = "missing_file"  # of a format with files for each image
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

TRAINING_SPLITS: Final = ("train", "restval")  # how their names begin; Karpathy's `restval` is trained on

_BOX_OVERSHOOT = 2.0  # pixels

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
        sample_id: unique within its source.
        image_id: as in the image's own row.
        task: caption, vqa, rec, …: what the source's rows are first of all.
        level: image or region.
        text: the question, or the referring expression; empty for captions.
        answers: all annotators' answers, or all captions; empty where the file gives none (test splits).
        box: x, y, width, height in pixels, or None.
        choices: of a multiple-choice question, else empty.
        correct_choice: index into `choices`, or None.
        region_id: the same for all expressions of one region, else None.
        difficult: annotators could hardly answer freely; A-OKVQA leaves such questions out of direct-answer scores.
        split: the split that the file itself says the row is of, else None.
        same_as: the id of the same picture in COCO, where the file says so (Visual Genome took half of its pictures
            from there), else None.
        phrases: of a grounded caption, the sentence piece by piece, each with its box (pixels) or None.
        file_name: of its image, where the file says so beside the id, so that another picture of that id is noticed.
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
        """Whether its file counts it to a split for evaluation: any that is not for training."""
        return self.split is not None and not self.split.startswith(TRAINING_SPLITS)


@dataclass(frozen=True)
class BadRecord:
    """An annotation that could not be used, and why: a row of `pipelines.core.tables.QUARANTINE`."""

    image_id: str | None
    uri: str | None
    stage: str
    reason: str
    detail: str


class BadAnnotation(ValueError):
    """Raised while one annotation is read; its reader turns it into a `BadRecord` and goes on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(_escaped(detail))
        self.reason = reason

    def record(self, image_id: str | None = None, uri: str | None = None) -> BadRecord:
        """What goes to quarantine."""
        image_id, uri = (None if name is None else _escaped(name) for name in (image_id, uri))
        return BadRecord(image_id, uri, STAGE, self.reason, str(self))


def _escaped(text: str) -> str:
    """Return the text with what is not Unicode written as escapes: the quarantine is a table of UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def field(entry: Any, key: str, kinds: type | tuple[type, ...], where: str) -> Any:
    """`entry[key]`, checked; `where` says in messages what the entry is.

    Raises:
        BadAnnotation: the entry is not an object, the key is missing, its value has another type, or it is a text that
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
    """Whether the text has neither half a surrogate pair nor, in its place, a byte that is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def unicode_text(text: str, what: str) -> str:
    """Return the text itself.

    Raises:
        BadAnnotation: it holds half of a surrogate pair, or bytes that are not UTF-8.
    """
    if not is_unicode(text):
        raise BadAnnotation(WRONG_TYPE, f"{what} is not UTF-8 text")
    return text


def text_field(entry: Any, key: str, where: str) -> str:
    """Return a text that says something, without surrounding spaces.

    Raises:
        BadAnnotation: as `field`; also where the text is empty.
    """
    text = str(field(entry, key, str, where)).strip()
    if not text:
        raise BadAnnotation(EMPTY_TEXT, f"{key!r} of {where} is empty")
    return text


def id_field(entry: Any, key: str, where: str) -> str:
    """Return an id as text: 309 → "309".

    Raises:
        BadAnnotation: as `field`; also where the id is empty.
    """
    value = str(field(entry, key, (int, str), where)).strip()
    if not value:
        raise BadAnnotation(WRONG_VALUE, f"{key!r} of {where} is empty")
    return value


def size_field(entry: Any, key: str, where: str) -> int | None:
    """Return a width or height in pixels; None where the file does not say.

    Raises:
        BadAnnotation: not a positive whole number.
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
        BadAnnotation: as `field`; also where an element is not text.
    """
    values = field(entry, key, list, where)
    if any(not isinstance(value, str) for value in values):
        raise BadAnnotation(WRONG_TYPE, f"{key!r} of {where} holds something that is not text")
    return tuple(unicode_text(value, f"a text in {key!r} of {where}") for value in values)


def box_field(entry: Any, key: str, where: str) -> Xywh:
    """Return a box x, y, width, height in pixels.

    Raises:
        BadAnnotation: not four finite numbers, or no area. Width or height are negative where corners were swapped.
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
    """The box inside its image: what overshoots by up to two pixels is cut off, as annotators' rounding leaves it.

    Raises:
        BadAnnotation: it reaches further out, so that it belongs to another image or another scale.
    """
    x1, y1, x2, y2 = box[0], box[1], box[0] + box[2], box[1] + box[3]
    out = max(-x1, -y1, x2 - width, y2 - height)
    if out > _BOX_OVERSHOOT:
        raise BadAnnotation(BOX_OUTSIDE_IMAGE, f"box {list(box)} reaches {out:g} pixels out of {width} x {height}")
    if out <= 0:
        return box
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if x2 <= x1 or y2 <= y1:
        raise BadAnnotation(BOX_OUTSIDE_IMAGE, f"nothing of box {list(box)} lies in {width} x {height}")
    return x1, y1, x2 - x1, y2 - y1


def image_uri(images: str, file_name: str) -> str:
    """Return the image's URI under its root (a path, `s3://…`, `gs://…`)."""
    return storage.join(storage.absolute(images), file_name)
