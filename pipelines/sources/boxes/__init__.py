"""Boxes as numbers and as text, in the notations that vision-language models write.

A box is `(x1, y1, x2, y2)`, normalized to [0, 1] by the width and height of the un-padded image, origin top left.

* `geometry`: calculations (clip, overlap, pixels to [0, 1]).
* `formats`: the meaning of the numbers in a text: their scale and order (`BoxFormat`).
* `reading`: find the boxes in a text, or the reason why a candidate is not readable.
* `writing`: write boxes as text.
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
