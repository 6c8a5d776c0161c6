r"""Flips and crops that keep a region sample true: boxes move with the image, words of direction are swapped.

A sample that could become wrong is left unchanged:

* no flip if left or right may not be a direction (`right behind`, `the man who left`, `all right`), or if the text
  names things that look different in a mirror (letters, numbers, clocks, east and west);
* no crop of a grounded caption, or if words depend on the frame or on other objects in it (left, top, middle, corner,
  background, nearest, second …);
* neither if a box has a notation or scale that this project does not write.

A crop always contains every box of the sample completely. Boxes are read from the text, and have its precision: three
decimals, or the cells of Kosmos-2.
"""

import re
from collections.abc import Callable

import numpy as np
from PIL import Image

from pipelines.sources.boxes import (
    KOSMOS2_GRID,
    Box,
    ParsedBox,
    find_boxes,
    format_box,
    format_coordinates,
    format_patches,
    scan,
)

LEAST_SIDE = 0.6
"""The smallest fraction of a side that a crop keeps."""

_DIRECTION = re.compile(r"\b(left|right)(?=(?:most|hand|handed|ward|wards|side|er)?\b)", re.IGNORECASE)
_FORMS = re.compile(r"\[?x1,y1,x2,y2\]?|<patch_index_(?:first|last)>|</?(?:phrase|object)>")
_PLACES = (
    "next|behind|in|beside|below|above|under|underneath|over|up|at|by|before|after|here|there|now|away|through|into"
)
_NOT_MIRRORED = re.compile(
    rf"""\b(?:
      right\s+(?:{_PLACES}|near|against|between|outside|inside|across|beneath|angles?|answers?|options?|size|way)
    | (?:all|is|that's|it's|just|the\s+time)\s+right(?!\s+(?:of|side|one|most|hand|guy|man|woman))
    | (?:is|are|was|were|be|been|being|has|have|had|who|which|what's)\s+left
    | left\s+(?:over|behind|alone|out|open)
    | l|r|lt|rt|lft|rgt|rite
    | letters?|words?|texts?|numbers?|numerals?|digits?|says?|saying|reads?|reading|writ(?:ten|ing)|spell(?:s|ed)?
    | logos?|labels?|initials?|jerseys?|plates?\s+number|clocks?|watch(?:es)?|o'?clock|(?:counter|anti)?-?clockwise
    | east(?:ern)?|west(?:ern)?|mirror(?:ed|s)?|port|starboard
    )\b|[0-9"#]""",
    re.IGNORECASE | re.VERBOSE,
)
_OF_THE_FRAME = re.compile(
    r"""\b(?:left|right|top|bottom|upper|lower|up|down|high(?:er|est)?|low(?:er|est)?|middle|mid|cent(?:er|re|ral)|corner
    |edge|side|border|background|foreground|front|back|far|farthest|further|near|near(?:er|est)|clos(?:e|er|est)
    |first|second|third|fourth|fifth|last|end|ends|next|row|rows|only|other|another|both|all|partial(?:ly)?|part
    |cut|half|visible|whole|full|one|two|three|four|five|six)\w*""",
    re.IGNORECASE | re.VERBOSE,
)
_Move = Callable[[Box], Box]


def augment(
    image: Image.Image,
    instruction: str,
    answer: str,
    task: str,
    rng: np.random.Generator,
    flip: float = 0.5,
    crop: float = 0.5,
) -> tuple[Image.Image, str, str]:
    """Return the sample flipped, cropped, both or as it is.

    Args:
        image: the image.
        instruction: the question, with its boxes as text.
        answer: the expected answer, with its boxes as text.
        task: rec, reg or grounded_caption; samples of other tasks stay unchanged.
        rng: the generator of all random choices; the same state gives the same sample.
        flip: probability of a flip, where it keeps the sample true.
        crop: probability of a crop, where it keeps the sample true.
    """
    do_flip, do_crop = rng.random(2) < (flip, crop)
    corners = rng.random(4)  # drawn even without a crop, so that later draws do not depend on this choice
    if task not in ("rec", "reg", "grounded_caption") or not (_is_supported(instruction) and _is_supported(answer)):
        return image, instruction, answer
    boxes = list(find_boxes(f"{instruction}\n{answer}"))
    if do_flip and can_flip(instruction, answer):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        instruction, answer = (_moved(_swapped(text), _mirrored) for text in (instruction, answer))
        boxes = list(find_boxes(f"{instruction}\n{answer}"))
    if do_crop and task != "grounded_caption" and boxes and can_crop(instruction, answer):
        window = _window(image.size, [box.box for box in boxes], corners)
        move = _into(window, image.size)
        image = image.crop(window)
        instruction, answer = (_moved(text, move) for text in (instruction, answer))
    return image, instruction, answer


def _is_supported(text: str) -> bool:
    """Return whether every possible box in the text can be read, and has a scale that this project writes."""
    return all(isinstance(box, ParsedBox) and box.scale in (1, KOSMOS2_GRID) for box in scan(text))


def can_flip(*texts: str) -> bool:
    """Return whether the texts are true of the mirrored image when left and right are swapped."""
    return not any(_NOT_MIRRORED.search(_words(text)) for text in texts)


def can_crop(*texts: str) -> bool:
    """Return whether the texts stay true when the margins of the image are cut off."""
    return not any(_OF_THE_FRAME.search(_words(text)) for text in texts)


def _words(text: str) -> str:
    """Return the text without its boxes and without the words that describe their notation."""
    for parsed in reversed(list(find_boxes(text))):
        text = text[: parsed.span[0]] + text[parsed.span[1] :]
    return _FORMS.sub("", text)


def _swapped(text: str) -> str:
    """Return the text with left and right exchanged; capital letters stay."""

    def other(match: re.Match[str]) -> str:
        word = "right" if match[1].lower() == "left" else "left"
        return word.upper() if match[1].isupper() else word.capitalize() if match[1][0].isupper() else word

    return _DIRECTION.sub(other, text)


def _moved(text: str, move: _Move) -> str:
    """Return the text with every box moved, each in its notation."""
    for parsed in reversed(list(find_boxes(text))):
        text = text[: parsed.span[0]] + _like(parsed, move(parsed.box)) + text[parsed.span[1] :]
    return text


def _like(parsed: ParsedBox, box: Box) -> str:
    inside = format_patches(box) if parsed.scale == KOSMOS2_GRID else format_coordinates(box)
    if parsed.notation == "markdown":
        return f"({inside})"
    return inside if parsed.notation == "kosmos2" else format_box(box)


def _mirrored(box: Box) -> Box:
    return 1 - box[2], box[1], 1 - box[0], box[3]


def _window(size: tuple[int, int], boxes: list[Box], random: np.ndarray) -> tuple[int, int, int, int]:
    """Return a part of the image with all boxes, as left, top, right, bottom in pixels.

    Args:
        size: width and height of the image in pixels.
        boxes: boxes as fractions of the sides.
        random: four numbers in [0, 1): they decide width, height, left and top, in this order.
    """
    spans = []
    for axis, pixels in enumerate(size):
        low = int(min(box[axis] for box in boxes) * pixels)
        high = int(np.ceil(max(box[axis + 2] for box in boxes) * pixels))
        least = max(high - low, int(np.ceil(LEAST_SIDE * pixels)))
        length = least + int((pixels - least + 1) * random[axis])
        first, last = max(0, high - length), min(low, pixels - length)
        start = first + int((last - first + 1) * random[axis + 2])
        spans.append((start, start + length))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def _into(window: tuple[int, int, int, int], size: tuple[int, int]) -> _Move:
    (left, top, right, bottom), (width, height) = window, size

    def move(box: Box) -> Box:
        return (
            (box[0] * width - left) / (right - left),
            (box[1] * height - top) / (bottom - top),
            (box[2] * width - left) / (right - left),
            (box[3] * height - top) / (bottom - top),
        )

    return move
