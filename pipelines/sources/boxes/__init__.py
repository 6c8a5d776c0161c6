"""Boxes as numbers and as text: the notations that vision-language models write, read without ever evaluating them.

A box is `(x1, y1, x2, y2)`, normalized to [0, 1] by the width and height of the un-padded image, origin top left.

* `geometry`: numbers only (clip, overlap, pixels to [0, 1]).
* `formats`: what the numbers of a text mean: their scale and the order of the corners (`BoxFormat`).
* `reading`: the boxes of a text, and why a candidate is no readable box.
* `writing`: boxes as text.
* `patches`: Kosmos-2's location tokens.

docs/notations.md describes every notation, with examples.
"""

from pipelines.sources.boxes.formats import AUTO, UNREADABLE, BoxFormat, BoxOrder, BoxScale, Size, Unreadable
from pipelines.sources.boxes.geometry import BORDER, Box, clip, has_area, iou, normalize_xywh
from pipelines.sources.boxes.patches import KOSMOS2_GRID, format_patches
from pipelines.sources.boxes.reading import Notation, ParsedBox, UnreadableBox, find_boxes, parse_box, read_box, scan
from pipelines.sources.boxes.writing import format_box, format_coordinates

__all__ = [
    "AUTO", "BORDER", "KOSMOS2_GRID", "UNREADABLE", "Box", "BoxFormat", "BoxOrder", "BoxScale", "Notation", "ParsedBox",
    "Size", "Unreadable", "UnreadableBox", "clip", "find_boxes", "format_box", "format_coordinates", "format_patches",
    "has_area", "iou", "normalize_xywh", "parse_box", "read_box", "scan",
]  # fmt: skip
