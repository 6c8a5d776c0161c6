"""Grounded text: phrases with boxes, in the notations of LION, Markdown links and Kosmos-2.

docs/notations.md shows each notation, and what a conversion between them loses.
"""

from collections.abc import Sequence

from pipelines.sources.boxes import Notation
from pipelines.sources.grounding.brackets import from_lion, from_markdown, to_lion, to_markdown
from pipelines.sources.grounding.kosmos2 import from_kosmos2, has_objects, to_kosmos2
from pipelines.sources.grounding.spans import Span, merged

__all__ = [
    "Span", "from_kosmos2", "from_lion", "from_markdown", "grounded_spans", "lion_to_markdown", "markdown_to_lion",
    "merged", "to_kosmos2", "to_lion", "to_markdown", "write",
]  # fmt: skip


def write(spans: Sequence[Span], notation: Notation) -> str:
    """Return spans as text in a notation.

    Raises:
        ValueError: a box is not four finite numbers, or its corners are swapped.
    """
    return {"lion": to_lion, "markdown": to_markdown, "kosmos2": to_kosmos2}[notation](spans)


def grounded_spans(text: str) -> list[Span]:
    """Return the phrases with boxes of a text in any notation.

    The notation is recognized by Kosmos-2's `<object>` or Markdown's `](`; every other text is read as LION's.
    """
    spans = from_kosmos2(text) if has_objects(text) else from_markdown(text)
    boxed = [span for span in spans if span.box is not None]
    return boxed or [span for span in from_lion(text) if span.box is not None]


def markdown_to_lion(text: str) -> str:
    """Convert a text with Markdown links to LION's notation."""
    return to_lion(from_markdown(text))


def lion_to_markdown(text: str) -> str:
    """Convert a text in LION's notation to Markdown links."""
    return to_markdown(from_lion(text))
