"""Find the boxes in a text. Every notation below is recognized without a setting.

* LION (arXiv 2311.11860): `[0.440,0.060,0.650,0.367]`; also with round brackets, braces or doubled brackets. Commas,
  semicolons, blanks and line breaks separate the numbers, which may have any number of digits, a sign and an exponent;
* corner pairs: `(0.44,0.06),(0.65,0.367)`;
* Markdown link: `[a black cat](0.440,0.060,0.650,0.367)`;
* Kosmos-2's location tokens: `<patch_index_0044><patch_index_0863>`.

A `BoxFormat` sets the meaning of the numbers. A box is clipped to the image. Every candidate that is not readable is
reported with its reason (`Unreadable`), so that it can be counted.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.sources.boxes.formats import AUTO, BoxFormat, Size, Unreadable
from pipelines.sources.boxes.geometry import Box
from pipelines.sources.boxes.patches import KOSMOS2_GRID, box_of_patches

Notation = Literal["lion", "markdown", "kosmos2"]

# Matching takes linear time for any text: an attempt starts at a bracket or a token and ends before the next one, and
# the possessive repetitions (`*+`, `++`) never backtrack.
_NUMBER = r"[-+]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]++)?"
_SEPARATOR = r"(?:\s++(?:[,;]\s*+)?|[,;]\s*+)"
_PATCH_PAIR = r"<patch_index_([0-9]{4})>\s*+<patch_index_([0-9]{4})>"
_MOST_CORNERS = 8
_CANDIDATE = re.compile(
    rf"[\[({{]\s*+(?:({_NUMBER}(?:{_SEPARATOR}{_NUMBER})++)|{_PATCH_PAIR})\s*+[\])}}]|{_PATCH_PAIR}"
)
_NUMBERS = re.compile(_NUMBER)
_CORNER_BREAK = re.compile(r"\s*+[,;]?\s*+")


@dataclass(frozen=True)
class ParsedBox:
    """A box that a text contains.

    Attributes:
        box: x1, y1, x2, y2 in [0, 1], clipped to the image, with an area.
        notation: the notation that it is written in.
        scale: the divisor of the numbers: 1, 999, 1000 or pixels (Kosmos-2: the 32 cells of a side).
        span: start and end of its slice of the text.
    """

    box: Box
    notation: Notation
    scale: int | Literal["pixels"]
    span: tuple[int, int]


@dataclass(frozen=True)
class UnreadableBox:
    """A text that looks like a box and is not readable.

    Attributes:
        reason: why it is not readable.
        span: start and end of its slice of the text.
    """

    reason: Unreadable
    span: tuple[int, int]


def parse_box(text: str, form: BoxFormat = AUTO, size: Size | None = None) -> ParsedBox | None:
    """Return the first readable box of a text (a model's answer), or None.

    Args:
        text: to search.
        form: the scale and the order of the numbers.
        size: width and height of the image; needed for the scale `pixels`.
    """
    return next(find_boxes(text, form, size), None)


def read_box(text: str, form: BoxFormat = AUTO, size: Size | None = None) -> Box | Unreadable:
    """Return the first readable box of a text, or else the reason of its first candidate."""
    reason: Unreadable = "no_box"
    for candidate in scan(text, form, size):
        if isinstance(candidate, ParsedBox):
            return candidate.box
        reason = candidate.reason if reason == "no_box" else reason
    return reason


def find_boxes(text: str, form: BoxFormat = AUTO, size: Size | None = None) -> Iterator[ParsedBox]:
    """Return an iterator over the readable boxes of a text, in order."""
    return (candidate for candidate in scan(text, form, size) if isinstance(candidate, ParsedBox))


def scan(text: str, form: BoxFormat = AUTO, size: Size | None = None) -> Iterator[ParsedBox | UnreadableBox]:
    """Yield every part of a text that looks like a box, in order, readable or not."""
    link_end = -1  # end of the last box of a Markdown link; a box that follows directly belongs to the same link
    for candidate in _candidates(text):
        first, last = candidate[0], candidate[-1]
        start, end = _with_outer_brackets(text, first.start(), last.end())
        is_link = text[start] == "(" and (text[start - 1 : start] == "]" or start == link_end)
        link_end = end if is_link else -1
        read = _read(candidate, form, size)
        if isinstance(read, str):
            yield UnreadableBox(read, (start, end))
            continue
        notation: Notation = "markdown" if is_link else "kosmos2" if first[1] is None else "lion"
        yield ParsedBox(read[0], notation, read[1], (start, end))


def _candidates(text: str) -> Iterator[list[re.Match[str]]]:
    """Yield the bracketed numbers and token pairs of a text. Corners in separate brackets are grouped."""
    corners: list[re.Match[str]] = []  # successive matches of two numbers each, as in `(x1,y1),(x2,y2)`
    for match in _CANDIDATE.finditer(text):
        is_corner = match[1] is not None and len(_NUMBERS.findall(match[1])) == 2
        if corners and not (is_corner and _CORNER_BREAK.fullmatch(text, corners[-1].end(), match.start())):
            yield corners
            corners = []
        if is_corner:
            # More corners than a box can have are unreadable: then only the first ones and the last one are kept, so
            # that a text of a million corners takes no memory.
            corners[_MOST_CORNERS:] = [match]
        else:
            yield [match]
    if corners:
        yield corners


def _read(
    candidate: Sequence[re.Match[str]], form: BoxFormat, size: Size | None
) -> tuple[Box, int | Literal["pixels"]] | Unreadable:
    if candidate[0][1] is None:
        first, last = (int(patch) for patch in candidate[0].groups() if patch is not None)
        box = box_of_patches(first, last)
        return box if isinstance(box, str) else (box, KOSMOS2_GRID)
    numbers = [number for match in candidate for number in _NUMBERS.findall(match[1])]
    if len(numbers) != 4:
        return "too_few_numbers" if len(numbers) < 4 else "too_many_numbers"
    return form.read(numbers, size)


def _with_outer_brackets(text: str, start: int, end: int) -> tuple[int, int]:
    """Extend a slice by a further pair of brackets directly around it, as in `[[x1,y1,x2,y2]]`."""
    before, behind = text[max(start - 1, 0) : start], text[end : end + 1]
    is_bracketed = text[start] in "[({" and before in ("[", "(", "{") and behind in ("]", ")", "}")
    return (start - 1, end + 1) if is_bracketed else (start, end)
