"""Kosmos-2's location tokens (arXiv 2306.14824): `<patch_index_0044><patch_index_0863>` on a grid of 32 x 32 cells.

The first token is the cell of the top left corner, the second the cell of the bottom right corner, row by row.
"""

import math
from collections.abc import Sequence

from pipelines.sources.boxes.formats import Unreadable
from pipelines.sources.boxes.geometry import Box, checked, clip, has_area
from pipelines.sources.boxes.writing import DECIMALS

KOSMOS2_GRID = 32
_SNAP = 0.51 * 10**-DECIMALS * KOSMOS2_GRID  # in cells: slightly more than rounding to three decimals moves a corner


def format_patches(box: Sequence[float]) -> str:
    """Return the tokens of the cells that contain the top left and the bottom right corner.

    Tokens are read as the centers of these cells, so that a side moves by at most half a cell (1/64). If both cells are
    in one row or column, they are read as whole cells, and a side moves by at most one cell (1/32). A corner that is
    within the rounding of three decimals from a cell's border counts as on the border, so that tokens converted to
    LION's notation and back stay equal.

    Args:
        box: x1, y1, x2, y2, normalized; clipped to the image.

    Raises:
        ValueError: the box is not four finite numbers, or its corners are swapped.
    """
    x1, y1, x2, y2 = clip(checked(box))
    left, top = (min(math.floor(value * KOSMOS2_GRID + _SNAP), KOSMOS2_GRID - 1) for value in (x1, y1))
    right, bottom = (math.ceil(value * KOSMOS2_GRID - 1 - _SNAP) for value in (x2, y2))
    right, bottom = max(right, left), max(bottom, top)
    return f"<patch_index_{top * KOSMOS2_GRID + left:04d}><patch_index_{bottom * KOSMOS2_GRID + right:04d}>"


def box_of_patches(first: int, last: int) -> Box | Unreadable:
    """Return the box between the centers of two cells, or of whole cells if both are in one row or column."""
    if max(first, last) >= KOSMOS2_GRID**2:
        return "outside"
    (top, left), (bottom, right) = divmod(first, KOSMOS2_GRID), divmod(last, KOSMOS2_GRID)
    inset, outset = (0.0, 1.0) if left == right or top == bottom else (0.5, 0.5)
    box = clip([corner / KOSMOS2_GRID for corner in (left + inset, top + inset, right + outset, bottom + outset)])
    return box if has_area(box) else "swapped_corners"
