"""Calculations with boxes: clipping, overlap, and pixels divided by the size of the image."""

import math
from collections.abc import Sequence
from typing import TypeAlias

Box: TypeAlias = tuple[float, float, float, float]

BORDER = 1e-6
"""How far a box may exceed its image by rounding of a division. A wrong scale exceeds it by more."""


def checked(box: Sequence[float]) -> Sequence[float]:
    """Return the box unchanged.

    Raises:
        ValueError: the box is not four finite numbers, or its corners are swapped.
    """
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise ValueError(f"A box is four finite numbers x1, y1, x2, y2, but the value is {list(box)}.")
    if box[2] < box[0] or box[3] < box[1]:
        raise ValueError(f"The corners of {list(box)} are swapped; a box is x1, y1, x2, y2 with x1 <= x2 and y1 <= y2.")
    return box


def clip(box: Sequence[float]) -> Box:
    """Return the part of a normalized box inside the image. It may have no area."""
    x1, y1, x2, y2 = (min(max(float(value), 0.0), 1.0) for value in box)
    return x1, y1, x2, y2


def has_area(box: Sequence[float]) -> bool:
    """Return whether x1 < x2 and y1 < y2."""
    return box[2] > box[0] and box[3] > box[1]


def normalize_xywh(box: Sequence[float], width: float, height: float) -> Box:
    """Convert a COCO or RefCOCO box (`x, y, width, height` in pixels) to a normalized box, clipped to the image.

    Raises:
        ValueError: the image has no size, or the box has no area inside the image.
    """
    if not (width > 0 and height > 0):
        raise ValueError(f"The image size must be positive, but is {width} x {height}.")
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        raise ValueError(f"A box is four finite numbers x, y, width, height, but the value is {list(box)}.")
    x, y, box_width, box_height = box
    inside = clip((x / width, y / height, (x + box_width) / width, (y + box_height) / height))
    if box_width <= 0 or box_height <= 0 or not has_area(inside):
        raise ValueError(
            f"The box {list(box)} (x, y, width, height) has no area inside the image of {width} x {height}."
        )
    return inside


def iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the intersection over union of two boxes of the same scale, in [0, 1]; 0 if one of them has no area."""
    if not (has_area(first) and has_area(second)):
        return 0.0
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    areas = (first[2] - first[0]) * (first[3] - first[1]) + (second[2] - second[0]) * (second[3] - second[1])
    return min(intersection / (areas - intersection), 1.0)
