"""Boxes drawn on a picture, each with the phrase that it belongs to."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pipelines.sources.boxes import find_boxes
from pipelines.sources.grounding import Span, grounded_spans

_COLORS = ("#e5484d", "#3b82f6", "#2f9e44", "#f08c00", "#9c36b5")
_LABEL = 40  # characters of a phrase that are drawn


def boxes_of(answer: str, phrase: str | None) -> list[Span]:
    """Return the boxes of an answer in order, a span for each; an evaluation scores the first.

    Args:
        answer: the model's text.
        phrase: the object of all boxes, as in `Answer: [x1,y1,x2,y2]`; None: each box has its phrase in the answer.
    """
    if phrase is not None:
        return [Span(phrase, parsed.box) for parsed in find_boxes(answer)]
    return [Span(span.text, box) for span in grounded_spans(answer) for box in span.boxes]


def draw_boxes(picture: Image.Image, spans: Sequence[Span], least: int = 320) -> Image.Image:
    """Return a copy of the picture with a box around each phrase.

    Args:
        picture: of any size.
        spans: phrases with boxes; phrases without a box are skipped.
        least: smallest length of the copy's longer side in pixels; a smaller picture is enlarged by a whole factor, so
            that labels are readable.
    """
    factor = max(1, math.ceil(least / max(picture.size)))
    size = (picture.width * factor, picture.height * factor)
    drawn = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(drawn)
    width, height = drawn.size
    line = max(2, round(min(width, height) / 150))
    font = ImageFont.load_default(max(11, round(min(width, height) / 28)))
    boxes = [(span.text, box) for span in spans for box in span.boxes]
    for number, (text, (x1, y1, x2, y2)) in enumerate(boxes):
        color = _COLORS[number % len(_COLORS)]
        corners = (x1 * (width - 1), y1 * (height - 1), x2 * (width - 1), y2 * (height - 1))
        pen.rectangle(corners, outline="white", width=line + 2)  # visible on any background
        pen.rectangle(corners, outline=color, width=line)
        if text:
            _label(pen, text[:_LABEL], corners, color, font, drawn.size)
    return drawn


def _label(
    pen: ImageDraw.ImageDraw, text: str, corners: Sequence[float], color: str, font: ImageFont.ImageFont |
    ImageFont.FreeTypeFont, size: tuple[int, int],
) -> None:  # fmt: skip
    """Draw the phrase on a patch of the box's color: above the box, or inside it where there is no room above."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    wide, high = right - left + 6, bottom - top + 4
    x = max(0.0, min(corners[0], size[0] - wide))
    y = corners[1] - high if corners[1] >= high else min(corners[1], size[1] - high)
    pen.rectangle((x, y, x + wide, y + high), fill=color)
    pen.text((x + 3 - left, y + 2 - top), text, fill="white", font=font)
