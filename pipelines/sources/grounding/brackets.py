r"""Grounded text in brackets: LION's notation and Markdown links, each turned into the other without loss.

* Markdown link: `[a black cat](0.440,0.060,0.650,0.367) on a sofa`. Kosmos-2's location tokens between the round
  brackets, and `[phrase]([x1,y1,x2,y2])`, are read too, never written.
* LION (arXiv 2311.11860): `a black cat [0.440,0.060,0.650,0.367]`. A phrase is all the text since the box before it;
  where it begins later, it is marked as `<p>phrase</p> [box]`, as MiniGPT-v2 marks phrases. So nothing is lost on the
  way to Markdown and back, and plain LION text is read too.
* Further boxes of a phrase stand right behind its first one, each in brackets of its own: `two cats [box][box]`,
  `[two cats](box)(box)`.

A backslash stands before a bracket, a `<` or a backslash of the text itself (`\[`); other backslashes are only text.
Right behind a link's box a backslash stands before a `(` too. Numbers keep three decimals.
"""

import re
from collections.abc import Iterator, Sequence

from pipelines.sources.boxes import ParsedBox, find_boxes, format_box, format_coordinates
from pipelines.sources.grounding.spans import Span, boxed, merged

_SPECIAL = re.compile(r"([\\\[\]<])")
_ESCAPED = re.compile(r"\\([\\\[\]<])")
_OPEN, _CLOSE = "<p>", "</p> "


def to_markdown(spans: Sequence[Span]) -> str:
    """Write spans as text with Markdown links.

    Raises:
        ValueError: a box is not four finite numbers in order.
    """
    pieces: list[str] = []
    behind_box = False
    for span in merged(spans):
        if span.box is None:
            text = _escape(span.text)
            pieces.append(f"\\{text}" if behind_box and text.startswith("(") else text)
        else:
            pieces.append(f"[{_escape(span.text)}]")
            pieces += [f"({format_coordinates(box)})" for box in span.boxes]
        behind_box = span.box is not None
    return "".join(pieces)


def from_markdown(text: str) -> list[Span]:
    """Return the spans of a text with Markdown links; a link whose box is unreadable stays text."""
    spans: list[Span] = []
    end = 0
    without_opening = 0  # no link begins between `end` and here, so that no stretch is searched twice
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
            spans.append(_behind_link(text[end:opening], end))
            spans.append(Span(_unescape(text[opening + 1 : start - 1]), parsed.box))
        else:
            continue
        end = parsed.span[1]
    return merged([*spans, _behind_link(text[end:], end)])


def to_lion(spans: Sequence[Span]) -> str:
    """Write spans in LION's notation, phrases marked where they do not begin right behind the box before them.

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
        pieces += [format_box(box) for box in span.boxes]
        bare = True
    return "".join(pieces)


def from_lion(text: str) -> list[Span]:
    """Return the spans of a text in LION's notation."""
    spans: list[Span] = []
    end = 0
    for parsed in _unescaped_boxes(text):
        if text[parsed.span[0]] not in "[<":
            continue  # LION's brackets are square; round ones are text
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


def _behind_link(text: str, start: int) -> Span:
    """Return the text behind a link's box (or at the start of all, where `start` is 0)."""
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


def _is_escaped(text: str, at: int) -> bool:
    first = at
    while first > 0 and text[first - 1] == "\\":
        first -= 1
    return (at - first) % 2 == 1


def _opening_bracket(text: str, closing: int, start: int) -> int | None:
    """Return the place of the unescaped `[` of the link that ends at `closing`, not before `start`."""
    at = closing
    while (at := text.rfind("[", start, at)) >= 0:
        if not _is_escaped(text, at):
            return at
    return None
