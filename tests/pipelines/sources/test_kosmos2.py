"""Kosmos-2's notation: transformers reads what this project writes, and the reverse."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources.boxes import Box, format_patches, parse_box
from pipelines.sources.grounding import Span, from_kosmos2, from_markdown, grounded_spans, merged, to_kosmos2

SNOWMAN = (0.390625, 0.046875, 0.984375, 0.828125)
FIRE = (0.171875, 0.015625, 0.484375, 0.890625)
# The example of transformers' `clean_text_and_extract_entities_with_bboxes`.
REAL = (
    "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> warming"
    " himself by<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>."
)
DELIMITER = "</delimiter_of_multi_objects/>"

quick = settings(max_examples=150, deadline=None)
words = st.text(st.sampled_from("ab é,.01()[]{}</>&;ltamp\\\n"), max_size=12) | st.sampled_from(
    [
        "a cat",
        " two dogs ",
        "<phrase>",
        "a < b > c",
        "&lt;",
        "&amp;lt;",
        "&<",
        "R&B",
        "</object>",
        "<object>",
        "</image>",
    ]
)
tokens = st.tuples(st.integers(0, 31), st.integers(0, 31), st.integers(0, 31), st.integers(0, 31)).map(
    lambda corners: (min(corners[0], corners[1]), min(corners[2:]), max(corners[:2]), max(corners[2:]))
)


def on_the_grid(cells: tuple[int, int, int, int]) -> Box:
    """Return the box of two cells."""
    parsed = parse_box(f"<patch_index_{cells[1] * 32 + cells[0]:04d}><patch_index_{cells[3] * 32 + cells[2]:04d}>")
    assert parsed is not None
    return parsed.box


grid_boxes = tokens.map(on_the_grid)


@st.composite
def spans(draw: st.DrawFn, text: st.SearchStrategy[str] = words) -> list[Span]:
    """Return a strategy of spans with boxes on the grid and phrases without blanks at their ends."""
    drawn = []
    for _ in range(draw(st.integers(0, 5))):
        boxes = draw(st.lists(grid_boxes, max_size=3))
        words_of = draw(text)
        drawn.append(Span(words_of.strip(), boxes[0], tuple(boxes[1:])) if boxes else Span(words_of))
    return merged(drawn)


def transformers_reads(text: str) -> tuple[str, list[tuple[str, tuple[int, int], list[Box]]]]:
    from transformers.models.kosmos2.processing_kosmos2 import clean_text_and_extract_entities_with_bboxes

    cleaned: Any = clean_text_and_extract_entities_with_bboxes(text)
    return cleaned[0], cleaned[1]


def test_the_real_output_of_the_model() -> None:
    assert from_kosmos2(REAL) == [
        Span("An image of "), Span("a snowman", SNOWMAN), Span(" warming himself by "), Span("a fire", FIRE), Span("."),
    ]  # fmt: skip
    assert to_kosmos2(from_kosmos2(REAL)) == REAL.removeprefix("<grounding> ")
    assert grounded_spans(REAL) == [Span("a snowman", SNOWMAN), Span("a fire", FIRE)]
    decoded = f"<s><image><image>, the, to and</image>{REAL}</s>"
    assert from_kosmos2(decoded) == from_kosmos2(REAL)


def test_what_is_written_transformers_reads() -> None:
    text, entities = transformers_reads(to_kosmos2([Span("An image of "), Span("a snowman", SNOWMAN), Span(" .")]))
    assert text == "An image of a snowman ."
    assert entities == [("a snowman", (12, 21), [SNOWMAN])]


@pytest.mark.parametrize(
    "grounded, text",
    [
        ([Span("two cats", SNOWMAN, (FIRE,))],
         f"<phrase>two cats</phrase><object><patch_index_0044><patch_index_0863>{DELIMITER}"
         "<patch_index_0005><patch_index_0911></object>"),
        ([Span("", SNOWMAN), Span(" and "), Span("", FIRE)],
         "<object><patch_index_0044><patch_index_0863></object> and "
         "<object><patch_index_0005><patch_index_0911></object>"),
        ([Span("a cat"), Span("it", FIRE), Span("  sleeps")],
         "a cat<phrase>it</phrase><object><patch_index_0005><patch_index_0911></object>  sleeps"),
        ([Span("if a < b, &lt; or R&B: "), Span("<x>", FIRE)],
         "if a &lt; b, &amp;lt; or R&B:<phrase> &lt;x></phrase><object><patch_index_0005><patch_index_0911></object>"),
    ],
)  # fmt: skip
def test_known_texts(grounded: list[Span], text: str) -> None:
    assert to_kosmos2(grounded) == text
    assert from_kosmos2(text) == merged(grounded)


@quick
@given(spans())
def test_reads_back_what_it_wrote(written: list[Span]) -> None:
    assert from_kosmos2(to_kosmos2(written)) == written


@quick
@given(spans())
def test_transformers_reads_the_same_entities_from_what_is_written(written: list[Span]) -> None:
    text, entities = transformers_reads(to_kosmos2(written))
    assert [boxes for name, _, boxes in entities if not name.startswith("<patch")] == [
        list(span.boxes) for span in written if span.text and span.boxes
    ]
    assert [boxes[0] for name, _, boxes in entities if name.startswith("<patch")] == [
        box for span in written if not span.text for box in span.boxes
    ]
    for name, (start, end), _ in entities:
        if not name.startswith("<patch"):
            assert text[start:end] == name


@st.composite
def outputs(draw: st.DrawFn) -> str:
    """Return a strategy of texts as the model writes them, also with blanks at the ends of phrases and bare objects."""
    plain = st.text(st.sampled_from("ab .,'é"), max_size=8)
    pieces = ["<grounding>"]
    for _ in range(draw(st.integers(0, 4))):
        pieces.append(draw(plain))
        pairs = draw(st.lists(grid_boxes.map(format_patches), min_size=1, max_size=3))
        phrase = draw(st.text(st.sampled_from("ab "), max_size=6) | st.none())
        pieces.append("" if phrase is None else f"<phrase>{phrase}</phrase>")
        pieces.append(f"<object>{DELIMITER.join(pairs)}</object>")
    return "".join([*pieces, draw(plain)])


@quick
@given(outputs())
def test_what_transformers_reads_is_read_here(text: str) -> None:
    cleaned, entities = transformers_reads(text)
    read = from_kosmos2(text)
    assert "".join(span.text for span in read).strip() == cleaned
    theirs = [(name, box) for name, _, boxes in entities for box in boxes]
    ours = [(span.text, box) for span in read for box in span.boxes]
    assert [box for _, box in ours] == [box for _, box in theirs]
    assert [name for name, _ in ours] == ["" if name.startswith("<patch") else name for name, _ in theirs]


def test_transformers_writes_blanks_that_its_reader_does_not_take() -> None:
    """Check that `preprocess_examples` of transformers writes blanks inside `<object>`, which its tokenizer drops."""
    spaced = "<phrase>a fire</phrase><object> <patch_index_0005> <patch_index_0911> </object>"
    assert transformers_reads(spaced)[1] == []
    assert from_kosmos2(spaced) == [Span("a fire", FIRE)]
    assert " " not in to_kosmos2([Span("fire", FIRE, (SNOWMAN,))])


def test_a_phrase_without_a_readable_box_is_text() -> None:
    outside = "<phrase>a cat</phrase><object><patch_index_2000><patch_index_2001></object> sleeps"
    assert from_kosmos2(outside) == [Span("a cat sleeps")]
    assert from_kosmos2("<phrase>a cat</phrase> sleeps<object>") == [Span("a cat sleeps")]


def test_tables_in_the_earlier_notation_are_still_read() -> None:
    earlier = "Answer: [a snowman](<patch_index_0044><patch_index_0863>) sleeps"
    assert from_markdown(earlier) == [Span("Answer: "), Span("a snowman", SNOWMAN), Span(" sleeps")]
    assert grounded_spans(earlier) == [Span("a snowman", SNOWMAN)]
    assert transformers_reads(earlier)[1] == [], "why it is written no more"
