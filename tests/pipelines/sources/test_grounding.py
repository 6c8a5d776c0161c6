"""Grounded text in two notations: written text is read back, and the notations convert without loss."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources.boxes import Notation
from pipelines.sources.grounding import (
    Span,
    from_kosmos2,
    from_lion,
    from_markdown,
    grounded_spans,
    lion_to_markdown,
    markdown_to_lion,
    merged,
    to_kosmos2,
    to_lion,
    to_markdown,
    write,
)

BOX = (0.44, 0.06, 0.65, 0.367)

thousandths = st.integers(0, 1000)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    x1, x2 = sorted(draw(st.lists(thousandths, min_size=2, max_size=2, unique=True)))
    y1, y2 = sorted(draw(st.lists(thousandths, min_size=2, max_size=2, unique=True)))
    return x1 / 1000, y1 / 1000, x2 / 1000, y2 / 1000


words = st.text(st.sampled_from("ab é,.01()[]{}<>/p\\\n"), max_size=20) | st.text(max_size=10)
quick = settings(max_examples=150, deadline=None)
more = st.just(()) | st.lists(boxes(), max_size=2).map(tuple)
spans = st.lists(st.builds(Span, words) | st.builds(Span, words, boxes(), more), max_size=5).map(merged)


@quick
@given(spans)
def test_markdown_reads_back_what_it_wrote(written: list[Span]) -> None:
    assert from_markdown(to_markdown(written)) == written


@quick
@given(spans)
def test_lion_reads_back_what_it_wrote(written: list[Span]) -> None:
    assert from_lion(to_lion(written)) == written


@quick
@given(spans)
def test_notations_turn_into_one_another_without_loss(written: list[Span]) -> None:
    markdown, lion = to_markdown(written), to_lion(written)
    assert markdown_to_lion(markdown) == lion
    assert lion_to_markdown(lion) == markdown
    assert lion_to_markdown(markdown_to_lion(markdown)) == markdown


@pytest.mark.parametrize(
    "text, markdown",
    [
        ("a black cat [0.440,0.060,0.650,0.367]", "[a black cat](0.440,0.060,0.650,0.367)"),
        (
            "a cat [0.100,0.100,0.200,0.200] and <p>a dog</p> [0.300,0.300,0.400,0.400].",
            "[a cat](0.100,0.100,0.200,0.200) and [a dog](0.300,0.300,0.400,0.400).",
        ),
        ("nothing here", "nothing here"),
    ],
)
def test_known_texts(text: str, markdown: str) -> None:
    assert lion_to_markdown(text) == markdown
    assert markdown_to_lion(markdown) == text


def test_plain_lion_text_takes_all_text_since_the_last_box_as_phrase() -> None:
    records = from_lion("a cat [0.1, 0.1, 0.2, 0.2] beside a dog [0.3,0.3,0.4,0.4]")
    assert [span.text for span in records if span.box] == ["a cat", "beside a dog"]


def test_kosmos2_tokens_inside_a_link() -> None:
    records = from_markdown("[a cat](<patch_index_0044><patch_index_0863>) sleeps")
    assert [span.text for span in records] == ["a cat", " sleeps"]
    assert records[0].box == pytest.approx((0.390625, 0.046875, 0.984375, 0.828125))


@pytest.mark.parametrize(
    "notation, text",
    [
        ("lion", "two cats [0.440,0.060,0.650,0.367][0.000,0.000,0.500,0.500] sleep"),
        ("markdown", "[two cats](0.440,0.060,0.650,0.367)(0.000,0.000,0.500,0.500) sleep"),
    ],
)
def test_several_boxes_of_one_phrase(notation: Notation, text: str) -> None:
    several = [Span("two cats", BOX, ((0.0, 0.0, 0.5, 0.5),)), Span(" sleep")]
    assert write(several, notation) == text
    assert (from_lion if notation == "lion" else from_markdown)(text) == several
    assert [span.boxes for span in grounded_spans(text)] == [(BOX, (0.0, 0.0, 0.5, 0.5))]


@pytest.mark.parametrize(
    "piece",
    ["](0.1,0.1,0.2,0.2)", "\\[](0,0,1,1)", "a [0.1,0.1,0.2,0.2]", "[a](0.1,0.1,0.2,0.2)",
     "\\\\[(0.1,0.1,0.2,0.2)", "\\\\](0,0,1,1)", "<phrase>a</phrase><object><patch_index_0001><patch_index_0099>",
     "<phrase>a", "<object>", "<phrase>" + " " * 50],
)  # fmt: skip
@pytest.mark.parametrize("read", [from_lion, from_markdown, from_kosmos2, grounded_spans])
def test_hostile_text_takes_linear_time(read: Callable[[str], list[Span]], piece: str) -> None:
    """Check that four times the text takes about four times as long. A quadratic reader would take sixteen times."""
    seconds = []
    for size in (50_000, 200_000):
        text, times = piece * (size // len(piece)), []
        for _ in range(2):
            started = time.process_time()
            read(text)
            times.append(time.process_time() - started)
        seconds.append(min(times))
    assert seconds[1] < 8 * seconds[0] + 0.05


def test_text_behind_a_link_is_no_further_box() -> None:
    written = [Span("a cat", BOX), Span("(0.1,0.1,0.2,0.2) of it")]
    assert to_markdown(written) == r"[a cat](0.440,0.060,0.650,0.367)\(0.1,0.1,0.2,0.2) of it"
    assert from_markdown(to_markdown(written)) == written


def test_a_phrase_has_no_further_box_without_a_first() -> None:
    with pytest.raises(ValueError, match="no first box"):
        Span("a cat", None, (BOX,))


@quick
@given(spans)
def test_lion_survives_location_tokens(written: list[Span]) -> None:
    """Check that tokens, which are coarser than numbers, stay equal when converted to LION's notation and back."""
    tokens = to_kosmos2(from_kosmos2(to_kosmos2(written)))  # blanks at the ends of a phrase move out of it
    assert to_kosmos2(from_lion(to_lion(from_kosmos2(tokens)))) == tokens
    for before, after in zip(
        [box for span in written for box in span.boxes],
        [box for span in from_kosmos2(tokens) for box in span.boxes],
        strict=True,
    ):
        assert after == pytest.approx(before, abs=1 / 32 + 0.0006)


@pytest.mark.parametrize(
    "notation, text",
    [
        ("lion", "a cat [0.440,0.060,0.650,0.367]"),
        ("markdown", "[a cat](0.440,0.060,0.650,0.367)"),
        ("kosmos2", "<phrase>a cat</phrase><object><patch_index_0046><patch_index_0372></object>"),
    ],
)
def test_notations_by_name(notation: Notation, text: str) -> None:
    assert write([Span("a cat", BOX)], notation) == text


def test_brackets_that_are_text_stay_text() -> None:
    assert from_lion(r"a sign \[0.1,0.1,0.2,0.2]") == [Span("a sign [0.1,0.1,0.2,0.2]")]
    assert from_markdown("see [exit](door)") == [Span("see [exit](door)")]
