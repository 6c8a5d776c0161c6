"""Boxes as numbers and as text: the notations that vision-language models write, read without ever evaluating them.

A box is `(x1, y1, x2, y2)`, normalised to [0, 1] by the width and height of the un-padded image, origin top left.

Notations that are read:

* LION (arXiv 2311.11860): `[0.440,0.060,0.650,0.367]`; round brackets, braces and doubled brackets count as the same;
* Markdown link (Kosmos-2, arXiv 2306.14824): `[a black cat](0.440,0.060,0.650,0.367)`;
* corner pairs: `(440,60),(650,367)`;
* Kosmos-2 location tokens: `<patch_index_0044><patch_index_0863>` on a grid of 32 x 32 cells.

The scale of the numbers is found by this rule, in this order:

1. a number with a decimal point, and none above 1.5: the scale is 0-1;
2. whole numbers of at most 1, not zero-padded: the scale is 0-1 (`[0,0,1,1]` is the whole image);
3. whole numbers of at most 999: the scale is 0-999; with a 1000 among them: 0-1000;
4. anything else (pixels of an unknown image, percentages with decimals) is unreadable.

Clip rule: a box is cut to the image. One that has no area then, or whose corners are swapped, is unreadable.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Box: TypeAlias = tuple[float, float, float, float]
Notation = Literal["lion", "markdown", "kosmos2"]

DECIMALS = 3
KOSMOS2_GRID = 32
_SNAP = 0.51 * 10**-DECIMALS * KOSMOS2_GRID  # cells: a little more than rounding to three decimals can move a corner
_OVERSHOOT = 0.5  # how far beyond the image a number on the 0-1 scale may lie and still be meant as one

# Every repetition is bounded, so that matching stays linear in the text's length whatever a model writes.
_NUMBER = r"(-?[0-9]{1,6}(?:\.[0-9]{1,12})?|-?\.[0-9]{1,12})"
_GAP = r"\s{0,4}"
_COMMA = rf"{_GAP}[,;]{_GAP}"
_CORNER_BREAK = rf"{_GAP}(?:[,;]|[)\]]{_GAP},?{_GAP}[(\[]){_GAP}"
_NUMBERS = rf"{_NUMBER}{_COMMA}{_NUMBER}{_CORNER_BREAK}{_NUMBER}{_COMMA}{_NUMBER}"
_PATCHES = r"<patch_index_([0-9]{4})>\s{0,4}<patch_index_([0-9]{4})>"
# Link bracket, opening, second opening, numbers or patches; as many closings as openings.
BOX_PATTERN = re.compile(
    rf"(\]?)([\[({{])([\[({{])?{_GAP}(?:{_NUMBERS}|{_PATCHES}){_GAP}[\])}}](?(3)[\])}}])|{_PATCHES}"
)


@dataclass(frozen=True)
class ParsedBox:
    """A box found in a text.

    Attributes:
        box: x1, y1, x2, y2 in [0, 1], cut to the image, with an area.
        notation: who writes boxes like that.
        scale: what the numbers were divided by: 1, 999 or 1000 (Kosmos-2: the 32 cells of a side).
        span: where it stands in the text, as a slice's start and end.
    """

    box: Box
    notation: Notation
    scale: int
    span: tuple[int, int]


def format_box(box: Sequence[float]) -> str:
    """`[x1,y1,x2,y2]` with three decimals and no spaces, as LION writes boxes.

    Args:
        box: x1, y1, x2, y2, normalised; cut to the image first.

    Raises:
        ValueError: not four finite numbers, or swapped corners.
    """
    return f"[{format_coordinates(box)}]"


def format_coordinates(box: Sequence[float]) -> str:
    """`x1,y1,x2,y2` with three decimals: the inside of every notation that writes numbers."""
    return ",".join(f"{value:.{DECIMALS}f}" for value in clip(_checked(box)))


def format_patches(box: Sequence[float]) -> str:
    """The location tokens of Kosmos-2 (arXiv 2306.14824): the cells that hold the top left and the bottom right corner.

    Rounding: reading the tokens gives the centres of these cells, so that a side moves by half a cell (1/64) at most;
    where both cells share a row or a column it gives whole cells, and a side moves by a cell (1/32) at most. A corner
    within the rounding of three decimals from the border of a cell counts as on it, so that tokens turned into LION's
    notation and back stay the same.

    Args:
        box: x1, y1, x2, y2, normalised; cut to the image first.

    Raises:
        ValueError: not four finite numbers, or swapped corners.
    """
    x1, y1, x2, y2 = clip(_checked(box))
    left, top = (min(math.floor(value * KOSMOS2_GRID + _SNAP), KOSMOS2_GRID - 1) for value in (x1, y1))
    right, bottom = (math.ceil(value * KOSMOS2_GRID - 1 - _SNAP) for value in (x2, y2))
    right, bottom = max(right, left), max(bottom, top)
    return f"<patch_index_{top * KOSMOS2_GRID + left:04d}><patch_index_{bottom * KOSMOS2_GRID + right:04d}>"


def _checked(box: Sequence[float]) -> Sequence[float]:
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise ValueError(f"A box is four finite numbers x1, y1, x2, y2, but this is {list(box)}.")
    if box[2] < box[0] or box[3] < box[1]:
        raise ValueError(f"The corners of {list(box)} are swapped; a box is x1, y1, x2, y2 with x1 <= x2 and y1 <= y2.")
    return box


def clip(box: Sequence[float]) -> Box:
    """The part of a normalised box that lies in the image (possibly without area)."""
    x1, y1, x2, y2 = (min(max(float(value), 0.0), 1.0) for value in box)
    return x1, y1, x2, y2


def has_area(box: Sequence[float]) -> bool:
    """Whether the corners are in order and apart."""
    return box[2] > box[0] and box[3] > box[1]


def normalise_xywh(box: Sequence[float], width: float, height: float) -> Box:
    """A COCO or RefCOCO box (`x, y, width, height` in pixels) as a normalised `x1, y1, x2, y2`, cut to the image.

    Raises:
        ValueError: the image has no size, or nothing of the box lies in the image.
    """
    if not (width > 0 and height > 0):
        raise ValueError(f"The image size must be positive, but is {width} x {height}.")
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise ValueError(f"A box is four finite numbers x, y, width, height, but this is {list(box)}.")
    x, y, box_width, box_height = box
    inside = clip((x / width, y / height, (x + box_width) / width, (y + box_height) / height))
    if box_width <= 0 or box_height <= 0 or not has_area(inside):
        raise ValueError(
            f"The box {list(box)} (x, y, width, height) has no area inside the image of {width} x {height}."
        )
    return inside


def iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two boxes of the same scale, in [0, 1]; 0 where either has no area."""
    if not (has_area(first) and has_area(second)):
        return 0.0
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    areas = (first[2] - first[0]) * (first[3] - first[1]) + (second[2] - second[0]) * (second[3] - second[1])
    return min(intersection / (areas - intersection), 1.0)


def parse_box(text: str) -> ParsedBox | None:
    """The first readable box of a text (a model's answer), or None. See the module's text for the rules."""
    return next(find_boxes(text), None)


def find_boxes(text: str) -> Iterator[ParsedBox]:
    """Every readable box of a text, in order."""
    for match in BOX_PATTERN.finditer(text):
        link, opening, _, *groups = match.groups()
        numbers, patches = groups[:4], [patch for patch in groups[4:] if patch is not None]
        scaled = _from_patches(patches) if patches else _from_numbers(numbers)
        if scaled is None or not has_area(scaled[0]):
            continue
        is_link = bool(link) and opening == "("
        notation: Notation = "markdown" if is_link else "kosmos2" if patches else "lion"
        # A `]` before the box belongs to a link's phrase, not to the box.
        yield ParsedBox(scaled[0], notation, scaled[1], (match.start() + len(link or ""), match.end()))


def _from_numbers(numbers: Sequence[str]) -> tuple[Box, int] | None:
    """The clipped box and its scale, or None where no scale fits or the corners are swapped."""
    values = [float(number) for number in numbers]
    largest, smallest = max(values), min(values)
    padded = any(len(digits) > 1 and digits[0] == "0" for digits in (number.lstrip("-") for number in numbers))
    if any("." in number for number in numbers):
        scale = 1 if largest <= 1 + _OVERSHOOT else 0
    elif largest <= 1 and not padded:
        scale = 1
    else:
        scale = 999 if largest <= 999 else 1000 if largest <= 1000 else 0
    if not scale or smallest < -_OVERSHOOT * scale or not has_area(values):
        return None
    return clip([value / scale for value in values]), scale


def _from_patches(patches: Sequence[str]) -> tuple[Box, int] | None:
    """The box between two cells of Kosmos-2's grid: cell centres, or whole cells where both share a row or a column."""
    first, last = (int(patch) for patch in patches)
    if max(first, last) >= KOSMOS2_GRID**2:
        return None
    (top, left), (bottom, right) = divmod(first, KOSMOS2_GRID), divmod(last, KOSMOS2_GRID)
    inset, outset = (0.0, 1.0) if left == right or top == bottom else (0.5, 0.5)
    corners = (left + inset, top + inset, right + outset, bottom + outset)
    return clip([corner / KOSMOS2_GRID for corner in corners]), KOSMOS2_GRID
