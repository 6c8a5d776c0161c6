"""Grounded text in Kosmos-2's notation (arXiv 2306.14824), as the model writes it and transformers reads it.

    <grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> warming
    himself by<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>.

* `</delimiter_of_multi_objects/>` separates the boxes of one phrase; an `<object>` may have no phrase.
* `<object>` contains only tokens and delimiters: with a blank in it, transformers finds no entity.
* The blank before a phrase is inside its tag, because the tokenizer drops blanks before a tag.
* The notation has no escape, and transformers deletes every text between `<` and `>`. So a `<` of the text is written
  as `&lt;` (and the text `&lt;` as `&amp;lt;`).
"""

import re
from collections.abc import Sequence

from pipelines.sources.boxes import Box, format_patches, parse_box
from pipelines.sources.grounding.spans import Span, boxed, merged

PHRASE, PHRASE_END, OBJECT, OBJECT_END = "<phrase>", "</phrase>", "<object>", "</object>"
DELIMITER = "</delimiter_of_multi_objects/>"
_IMAGE_END = "</image>"  # end of the image tokens in the prompt
_TOKEN = "<patch_index_[0-9]{4}>"
_PAIR = rf"{_TOKEN}\s*+{_TOKEN}"
_PAIRS = re.compile(_PAIR)
# An attempt starts at a tag and ends at the next `<` that is not a token, so that matching takes linear time.
_ENTITY = re.compile(
    rf"(?:{PHRASE}([^<]*+){PHRASE_END}\s*+)?{OBJECT}\s*+({_PAIR}(?:\s*+{DELIMITER}\s*+{_PAIR})*+)\s*+{OBJECT_END}"
)
_OBJECTS = re.compile(rf"{OBJECT}\s*+{_PAIR}")
_TAGS = re.compile(rf"<grounding>\s*+|</?(?:phrase|object|image|s|doc|chunk|line)>|<(?:pad|unk)>|{DELIMITER}|{_TOKEN}")
_LITERAL = re.compile(r"&((?:amp;)*+lt;)")
_ESCAPED = re.compile(r"&amp;((?:amp;)*+lt;)|&lt;")


def to_kosmos2(spans: Sequence[Span]) -> str:
    """Return spans in Kosmos-2's notation, without the `<grounding>` that begins its prompt.

    Boxes are rounded to the grid of 32 x 32 cells, see `pipelines.sources.boxes.format_patches`.

    Raises:
        ValueError: a box is not four finite numbers, or its corners are swapped.
    """
    pieces: list[str] = []
    for span in merged(spans):
        if span.box is None:
            pieces.append(_escape(span.text))
            continue
        tokens = DELIMITER.join(format_patches(box) for box in span.boxes)
        blanks = ""
        if span.text and pieces:
            text = pieces[-1].rstrip()
            blanks, pieces[-1] = pieces[-1][len(text) :], text
        phrase = f"{PHRASE}{blanks}{_escape(span.text)}{PHRASE_END}" if span.text else ""
        pieces.append(f"{phrase}{OBJECT}{tokens}{OBJECT_END}")
    return "".join(pieces)


def from_kosmos2(text: str) -> list[Span]:
    """Return the spans of a text in Kosmos-2's notation.

    Blanks at the ends of a phrase become text around it. Tags without a box, and the prompt up to `</image>`, are
    dropped. A box outside the grid, or with swapped corners, is dropped; a phrase without a box becomes text.
    """
    text = text.rpartition(_IMAGE_END)[2]
    spans: list[Span] = []
    end = 0
    for match in _ENTITY.finditer(text):
        phrase = _unescape(match[1] or "")
        word = phrase.strip()
        before = phrase[: len(phrase) - len(phrase.lstrip())] if word else phrase
        after = phrase[len(before) + len(word) :]
        spans += [_text(text[end : match.start()]), Span(before), boxed(word, _boxes(match[2])), Span(after)]
        end = match.end()
    return merged([*spans, _text(text[end:])])


def has_objects(text: str) -> bool:
    """Return whether a text has boxes in Kosmos-2's notation."""
    return _OBJECTS.search(text) is not None


def _boxes(tokens: str) -> list[Box]:
    parsed = [parse_box(pair) for pair in _PAIRS.findall(tokens)]
    return [box.box for box in parsed if box is not None]


def _text(text: str) -> Span:
    return Span(_unescape(_TAGS.sub("", text)))


def _escape(text: str) -> str:
    return _LITERAL.sub(r"&amp;\1", text).replace("<", "&lt;")


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: "<" if match[0] == "&lt;" else f"&{match[1]}", text)
