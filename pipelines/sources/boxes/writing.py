"""Write boxes as numbers in a text."""

from collections.abc import Sequence

from pipelines.sources.boxes.geometry import checked, clip

DECIMALS = 3


def format_box(box: Sequence[float]) -> str:
    """Return `[x1,y1,x2,y2]` with three decimals and no spaces, as LION writes boxes.

    Args:
        box: x1, y1, x2, y2, normalized; clipped to the image.

    Raises:
        ValueError: the box is not four finite numbers, or its corners are swapped.
    """
    return f"[{format_coordinates(box)}]"


def format_coordinates(box: Sequence[float]) -> str:
    """Return `x1,y1,x2,y2` with three decimals, for every notation that writes numbers.

    Raises:
        ValueError: the box is not four finite numbers, or its corners are swapped.
    """
    return ",".join(f"{value:.{DECIMALS}f}" for value in clip(checked(box)))
