"""The meaning of the four numbers of a box in a text: their scale, and the order of the corners.

Only the scale 0 to 1 can be recognized from the numbers: they have a decimal point or an exponent and none is above
1.5, or they are whole numbers and none is above 1. Whole numbers up to 999 can be thousandths (of 999 or of 1000) or
pixels, and no text shows whether x or y comes first. So scale and order are settings of a benchmark, an evaluation or a
source.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from pipelines.sources.boxes.geometry import Box, clip, has_area

BoxScale = Literal["auto", 1, 999, 1000, "pixels"]
BoxOrder = Literal["xyxy", "yxyx", "xywh"]
SCALES: tuple[BoxScale, ...] = get_args(BoxScale)
ORDERS: tuple[BoxOrder, ...] = get_args(BoxOrder)
Size: TypeAlias = tuple[float, float]
"""Width and height of an image in pixels."""

Unreadable = Literal[
    "no_box",  # no text that looks like a box
    "too_few_numbers",  # two or three numbers in brackets
    "too_many_numbers",  # five or more numbers in brackets, or more than two corners (a quadrilateral)
    "scale_unknown",  # numbers above 1, and the scale is not set
    "swapped_corners",  # the right side is left of the left side, or the bottom side above the top side
    "no_area",  # a line or a point
    "outside",  # no part is inside the image, or a corner is more than half the image's side outside
]
"""The reason why a text has no readable box."""
UNREADABLE: tuple[Unreadable, ...] = get_args(Unreadable)

_OVERSHOOT = 0.5  # how far a corner may be outside the image, as a fraction of its side
_THREE_DIGITS = re.compile(r"[0-9]{3}")


@dataclass(frozen=True)
class BoxFormat:
    """The scale and the order of the four numbers of a box, as a model or a file writes them."""

    scale: BoxScale = "auto"
    """The divisor that normalizes the numbers: 1 (they are fractions of the image), 999, 1000, or pixels (the image's
    width and height). auto: 1 if the numbers show it, else the box is unreadable. Set it if you know how the model or
    the file writes boxes."""
    order: BoxOrder = "xyxy"
    """xyxy: left, top, right, bottom. yxyx: top, left, bottom, right. xywh: left, top, width, height."""

    def __post_init__(self) -> None:
        if self.scale not in SCALES or isinstance(self.scale, bool | float):
            raise ValueError(f"The scale of boxes is {self.scale!r}; it must be one of {list(SCALES)}.")
        if self.order not in ORDERS:
            raise ValueError(f"The order of the numbers of a box is {self.order!r}; it must be one of {list(ORDERS)}.")

    def __str__(self) -> str:
        return f"scale {self.scale}, order {self.order}"

    def read(
        self, numbers: Sequence[str], size: Size | None = None
    ) -> tuple[Box, int | Literal["pixels"]] | Unreadable:
        """Return the box of four numbers, clipped to the image, and its scale; or the reason why it is unreadable.

        Args:
            numbers: the four numbers as text.
            size: of the image; needed for the scale `pixels`.

        Raises:
            ValueError: the scale is `pixels`, and `size` is None.
        """
        values = [float(number) for number in numbers]
        scale = _scale_of(numbers, values) if self.scale == "auto" else self.scale
        if scale is None:
            return "scale_unknown"
        width, height = _divisors(scale, size)
        across, down = ((1, 0) if self.order == "yxyx" else (0, 1)), ((3, 2) if self.order == "yxyx" else (2, 3))
        x1, y1 = values[across[0]] / width, values[across[1]] / height
        x2, y2 = values[down[0]] / width, values[down[1]] / height
        if self.order == "xywh":
            x2, y2 = x1 + x2, y1 + y2
        box = _inside((x1, y1, x2, y2))
        return box if isinstance(box, str) else (box, scale)


AUTO = BoxFormat()
"""The default: the scale is recognized if the numbers are fractions of the image, and x comes first."""


def _divisors(scale: int | Literal["pixels"], size: Size | None) -> Size:
    if scale != "pixels":
        return scale, scale
    if size is None or not (size[0] > 0 and size[1] > 0):
        raise ValueError(f"Boxes in pixels need the width and height of the image, but size is {size}.")
    return size


def _inside(box: Box) -> Box | Unreadable:
    """Return a normalized box clipped to the image, or the reason why it is unreadable."""
    if box[2] < box[0] or box[3] < box[1]:
        return "swapped_corners"
    if not all(-_OVERSHOOT <= value <= 1 + _OVERSHOOT for value in box):
        return "outside"
    if not has_area(box):
        return "no_area"
    cut = clip(box)
    return cut if has_area(cut) else "outside"


def _scale_of(numbers: Sequence[str], values: Sequence[float]) -> Literal[1, 999] | None:
    """Return the scale that the numbers show, or None.

    Numbers of three digits with leading zeros (`[000,001,500,999]`) are thousandths: no model pads pixels.
    """
    # With a decimal point or an exponent, numbers up to 1.5 are fractions of the image; larger ones may be pixels.
    if any(character in number for number in numbers for character in ".eE"):
        return 1 if max(values) <= 1 + _OVERSHOOT else None
    if any(number[0] == "0" for number in numbers) and all(_THREE_DIGITS.fullmatch(number) for number in numbers):
        return 999
    padded = any(len(digits) > 1 and digits[0] == "0" for digits in (number.lstrip("+-") for number in numbers))
    return 1 if max(values) <= 1 and not padded else None
