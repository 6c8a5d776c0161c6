"""Grounded text independent of a notation: pieces of text, some of them with boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.sources.boxes import Box


@dataclass(frozen=True)
class Span:
    """A piece of text. With boxes it is the phrase that the boxes belong to.

    Attributes:
        text: the phrase; empty for an object without a phrase.
        box: x1, y1, x2, y2 in [0, 1]; None for plain text.
        more: further boxes of the same phrase (`two cats`).
    """

    text: str
    box: Box | None = None
    more: tuple[Box, ...] = ()

    def __post_init__(self) -> None:
        if self.more and self.box is None:
            raise ValueError(f"The phrase {self.text!r} has further boxes, but no first box.")

    @property
    def boxes(self) -> tuple[Box, ...]:
        """All boxes of the phrase, in order."""
        return () if self.box is None else (self.box, *self.more)


def boxed(text: str, boxes: Sequence[Box]) -> Span:
    """Return the span of a phrase with its boxes; plain text if there are none."""
    return Span(text, boxes[0], tuple(boxes[1:])) if boxes else Span(text)


def merged(spans: Sequence[Span]) -> list[Span]:
    """Return the spans with adjacent plain texts joined and empty plain texts dropped."""
    joined: list[Span] = []
    for span in spans:
        if span.box is None and joined and joined[-1].box is None:
            joined[-1] = Span(joined[-1].text + span.text)
        elif span.box is not None or span.text:
            joined.append(span)
    return joined
