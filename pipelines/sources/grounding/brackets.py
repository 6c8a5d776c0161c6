r"""Grounded text in brackets: LION's notation and Markdown links, which convert to each other without loss.

* Markdown link: `[a black cat](0.440,0.060,0.650,0.367) on a sofa`. Kosmos-2's location tokens in the round brackets,
  and `[phrase]([x1,y1,x2,y2])`, are read, but never written.
* LION (arXiv 2311.11860): `a black cat [0.440,0.060,0.650,0.367]`. A phrase is the text since the previous box. If it
  begins later, it is written as `<p>phrase</p> [box]`, the notation of MiniGPT-v2. This makes the conversion to
  Markdown and back lossless, and plain LION text is read too.
* Further boxes of a phrase follow its first box directly, each in brackets: `two cats [box][box]`,
  `[two cats](box)(box)`.

A backslash escapes a bracket, a `<` or a backslash of the text (`\[`); other backslashes are text. Directly after the
box of a link, a backslash also escapes a `(`. Numbers have three decimals.
"""

import re
from collections.abc import Iterator, Sequence

from pipelines.sources.boxes import ParsedBox, find_boxes, format_box, format_coordinates
from pipelines.sources.grounding.spans import Span, boxed, merged

_SPECIAL = re.compile(r"([\\\[\]<])")
_ESCAPED = re.compile(r"\\([\\\[\]<])")
_OPEN, _CLOSE = "<p>", "</p> "


def to_markdown(spans: Sequence[Span]) -> str:
    """Return spans as text with Markdown links.

    Raises:
        ValueError: a box is not four finite numbers, or its corners are swapped.
    """
    pieces: list[str] = []
    after_box = False
    for span in merged(spans):
        if span.box is None:
            text = _escape(span.text)
            pieces.append(f"\\{text}" if after_box and text.startswith("(") else text)
        else:
            pieces.append(f"[{_escape(span.text)}]")
            pieces += [f"({format_coordinates(box)})" for box in span.boxes]
        after_box = span.box is not None
    return "".join(pieces)


def from_markdown(text: str) -> list[Span]:
    """Return the spans of a text with Markdown links. A link with an unreadable box is text."""
    spans: list[Span] = []
    end = 0
    without_opening = 0  # no link begins between `end` and here; this avoids searching a part twice (quadratic time)
    for parsed in _unescaped_boxes(text):
        start = parsed.span[0]
        if text[start] != "(":
            continue
        if spans and start == end:
            spans[-1] = boxed(spans[-1].text, (*spans[-1].boxes, parsed.box))
        elif text[start - 1 : start] == "]" and not _is_escaped(text, start - 1):
            opening = _opening_bracket(text, start - 1, max(end, without_opening))
            if opening is None:
                without_opening = start
                continue
            spans.append(_after_link(text[end:opening], end))
            spans.append(Span(_unescape(text[opening + 1 : start - 1]), parsed.box))
        else:
            continue
        end = parsed.span[1]
    return merged([*spans, _after_link(text[end:], end)])


def to_lion(spans: Sequence[Span]) -> str:
    """Return spans in LION's notation. Phrases that do not begin directly after the previous box are marked with `<p>`.

    Raises:
        ValueError: a box is not four finite numbers, or its corners are swapped.
    """
    pieces: list[str] = []
    bare = True  # only blanks since the last box
    for span in merged(spans):
        if span.box is None:
            pieces.append(_escape(span.text))
            bare = not span.text.strip()
            continue
        phrase = _escape(span.text)
        plain = bare and phrase.strip() == phrase != ""
        pieces.append(f"{phrase} " if plain else f"{_OPEN}{phrase}{_CLOSE}")
        pieces += [format_box(box) for box in span.boxes]
        bare = True
    return "".join(pieces)


def from_lion(text: str) -> list[Span]:
    """Return the spans of a text in LION's notation."""
    spans: list[Span] = []
    end = 0
    for parsed in _unescaped_boxes(text):
        if text[parsed.span[0]] not in "[<":
            continue  # LION's brackets are square; numbers in round brackets are text
        before = text[end : parsed.span[0]]
        if spans and not before:
            spans[-1] = boxed(spans[-1].text, (*spans[-1].boxes, parsed.box))
            end = parsed.span[1]
            continue
        opening = before.rfind(_OPEN) if before.endswith(_CLOSE) else -1
        if opening >= 0:
            outside, phrase = before[:opening], before[opening + len(_OPEN) : -len(_CLOSE)]
        else:
            phrase = before.strip()
            outside = before[: len(before) - len(before.lstrip())]
        spans += [Span(_unescape(outside)), Span(_unescape(phrase), parsed.box)]
        end = parsed.span[1]
    return merged([*spans, Span(_unescape(text[end:]))])


def _after_link(text: str, start: int) -> Span:
    """Return the text after the box of a link, or at the beginning of the text (`start` 0)."""
    is_escaped = start > 0 and text.startswith("\\(")
    return Span(_unescape(text[1:] if is_escaped else text))


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)


def _unescape(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)


def _unescaped_boxes(text: str) -> Iterator[ParsedBox]:
    for parsed in find_boxes(text):
        if not _is_escaped(text, parsed.span[0]):
            yield parsed


def _is_escaped(text: str, position: int) -> bool:
    first = position
    while first > 0 and text[first - 1] == "\\":
        first -= 1
    return (position - first) % 2 == 1


def _opening_bracket(text: str, closing: int, start: int) -> int | None:
    """Return the position of the unescaped `[` of the link that ends at `closing`; None if none follows `start`."""
    position = closing
    while (position := text.rfind("[", start, position)) >= 0:
        if not _is_escaped(text, position):
            return position
    return None
