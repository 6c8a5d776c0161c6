r"""Grounded text: phrases tied to boxes, in LION's notation and as Markdown links, each turned into the other.

* Markdown link (Kosmos-2, arXiv 2306.14824): `[a black cat](0.440,0.060,0.650,0.367) on a sofa`, or with Kosmos-2's
  location tokens between the round brackets. Reading takes both, and `[phrase]([x1,y1,x2,y2])`.
* LION (arXiv 2311.11860): `a black cat [0.440,0.060,0.650,0.367]`. A phrase is all the text since the box before it;
  where it begins later, it is marked as `<p>phrase</p> [box]`, as Kosmos-2 and MiniGPT-v2 mark phrases. So nothing is
  lost on the way to Markdown and back, and plain LION text is read too.

A backslash stands before a bracket, a `<` or a backslash of the text itself (`\[`); other backslashes are only text.
Numbers keep three decimals; what location tokens keep is said in `pipelines.boxes.format_patches`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipelines.boxes import Box, Notation, ParsedBox, find_boxes, format_box, format_coordinates, format_patches

_SPECIAL = re.compile(r"([\\\[\]<])")
_ESCAPED = re.compile(r"\\([\\\[\]<])")
_OPEN, _CLOSE = "<p>", "</p> "


@dataclass(frozen=True)
class Span:
    """A piece of text; with a box it is the phrase that the box belongs to."""

    text: str
    box: Box | None = None


def write(spans: Sequence[Span], notation: Notation) -> str:
    """Spans in a notation: `lion`, `markdown` (links with numbers) or `kosmos2` (links with location tokens).

    Raises:
        ValueError: a box is not four finite numbers in order.
    """
    return to_lion(spans) if notation == "lion" else to_markdown(spans, tokens=notation == "kosmos2")


def to_markdown(spans: Sequence[Span], tokens: bool = False) -> str:
    """Spans as text with Markdown links.

    Args:
        spans: the text.
        tokens: Kosmos-2's location tokens instead of numbers.

    Raises:
        ValueError: a box is not four finite numbers in order.
    """
    inside = format_patches if tokens else format_coordinates
    return "".join(
        _escape(span.text) if span.box is None else f"[{_escape(span.text)}]({inside(span.box)})" for span in spans
    )


def from_markdown(text: str) -> list[Span]:
    """Spans of a text with Markdown links; a link whose box is unreadable stays text."""
    spans: list[Span] = []
    end = 0
    for parsed in _unescaped_boxes(text):
        if text[parsed.span[0] - 1 : parsed.span[0]] != "]" or text[parsed.span[0]] != "(":
            continue
        opening = _opening_bracket(text, parsed.span[0] - 1, end)
        if opening is None:
            continue
        spans.append(Span(_unescape(text[end:opening])))
        spans.append(Span(_unescape(text[opening + 1 : parsed.span[0] - 1]), parsed.box))
        end = parsed.span[1]
    return merged([*spans, Span(_unescape(text[end:]))])


def to_lion(spans: Sequence[Span]) -> str:
    """Spans in LION's notation, phrases marked where they do not begin right behind the box before them.

    Raises:
        ValueError: a box is not four finite numbers in order.
    """
    pieces: list[str] = []
    bare = True  # nothing but blank text since the last box
    for span in merged(spans):
        if span.box is None:
            pieces.append(_escape(span.text))
            bare = not span.text.strip()
            continue
        phrase = _escape(span.text)
        plain = bare and phrase.strip() == phrase != ""
        pieces.append(f"{phrase} " if plain else f"{_OPEN}{phrase}{_CLOSE}")
        pieces.append(format_box(span.box))
        bare = True
    return "".join(pieces)


def from_lion(text: str) -> list[Span]:
    """Spans of a text in LION's notation."""
    spans: list[Span] = []
    end = 0
    for parsed in _unescaped_boxes(text):
        if text[parsed.span[0]] not in "[<":
            continue  # LION's brackets are square; round ones are text
        before = text[end : parsed.span[0]]
        opening = before.rfind(_OPEN) if before.endswith(_CLOSE) else -1
        if opening >= 0:
            outside, phrase = before[:opening], before[opening + len(_OPEN) : -len(_CLOSE)]
        else:
            phrase = before.strip()
            outside = before[: len(before) - len(before.lstrip())]
        spans += [Span(_unescape(outside)), Span(_unescape(phrase), parsed.box)]
        end = parsed.span[1]
    return merged([*spans, Span(_unescape(text[end:]))])


def markdown_to_lion(text: str) -> str:
    """A text with Markdown links in LION's notation."""
    return to_lion(from_markdown(text))


def lion_to_markdown(text: str, tokens: bool = False) -> str:
    """A text in LION's notation with Markdown links, of numbers or of Kosmos-2's location tokens."""
    return to_markdown(from_lion(text), tokens)


def merged(spans: Sequence[Span]) -> list[Span]:
    """The same text with neighbouring boxless spans joined and empty ones dropped."""
    joined: list[Span] = []
    for span in spans:
        if span.box is None and joined and joined[-1].box is None:
            joined[-1] = Span(joined[-1].text + span.text)
        elif span.box is not None or span.text:
            joined.append(span)
    return joined


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


def _unescape(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)


def _unescaped_boxes(text: str) -> Iterator[ParsedBox]:
    for parsed in find_boxes(text):
        if not _is_escaped(text, parsed.span[0]):
            yield parsed


def _is_escaped(text: str, at: int) -> bool:
    backslashes = at - len(text[:at].rstrip("\\"))
    return backslashes % 2 == 1


def _opening_bracket(text: str, closing: int, start: int) -> int | None:
    """The unescaped `[` of the link that ends at `closing`, not before `start`."""
    if _is_escaped(text, closing):
        return None
    at = closing
    while (at := text.rfind("[", start, at)) >= 0:
        if not _is_escaped(text, at):
            return at
    return None
