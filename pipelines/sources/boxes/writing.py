"""Boxes as text, in numbers."""

from collections.abc import Sequence

from pipelines.sources.boxes.geometry import checked, clip

DECIMALS = 3


def format_box(box: Sequence[float]) -> str:
    """Write `[x1,y1,x2,y2]` with three decimals and no spaces, as LION writes boxes.

    Args:
        box: x1, y1, x2, y2, normalized; cut to the image first.

    Raises:
        ValueError: not four finite numbers, or swapped corners.
    """
    return f"[{format_coordinates(box)}]"


def format_coordinates(box: Sequence[float]) -> str:
    """Write `x1,y1,x2,y2` with three decimals: the inside of every notation that writes numbers.

    Raises:
        ValueError: not four finite numbers, or swapped corners.
    """
    return ",".join(f"{value:.{DECIMALS}f}" for value in clip(checked(box)))
