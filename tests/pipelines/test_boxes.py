"""Boxes as text: what is written is read back, other notations and scales are read, hostile text is harmless."""

import math
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.boxes import Box, clip, find_boxes, format_box, format_patches, iou, normalise_xywh, parse_box

quick = settings(max_examples=150, deadline=None)
units = st.floats(0, 1, allow_nan=False)


@st.composite
def boxes(draw: st.DrawFn, least: float = 0.002) -> Box:
    x1, y1 = draw(st.floats(0, 1 - least)), draw(st.floats(0, 1 - least))
    return x1, y1, draw(st.floats(x1 + least, 1)), draw(st.floats(y1 + least, 1))


def test_lion_writes_three_decimals_without_spaces() -> None:
    assert format_box([0.44, 0.06, 0.65, 0.3671]) == "[0.440,0.060,0.650,0.367]"


@quick
@given(boxes())
def test_reads_back_what_it_wrote(box: Box) -> None:
    parsed = parse_box(f"Answer: {format_box(box)}")
    assert parsed is not None
    assert parsed.box == pytest.approx(box, abs=0.00051)
    assert parsed.scale == 1


@pytest.mark.parametrize(
    "text, box, notation, scale",
    [
        ("Answer: [0.440,0.060,0.650,0.367]", (0.44, 0.06, 0.65, 0.367), "lion", 1),
        ("it is at [0.44, 0.06, 0.65, .367].", (0.44, 0.06, 0.65, 0.367), "lion", 1),
        ("(0.44,0.06,0.65,0.367)", (0.44, 0.06, 0.65, 0.367), "lion", 1),
        ("{0.44;0.06;0.65;0.367}", (0.44, 0.06, 0.65, 0.367), "lion", 1),
        ("[a cat](0.44,0.06,0.65,0.367)", (0.44, 0.06, 0.65, 0.367), "markdown", 1),
        ("[a cat]([0.44,0.06,0.65,0.367])", (0.44, 0.06, 0.65, 0.367), "markdown", 1),
        ("[0,0,1,1]", (0, 0, 1, 1), "lion", 1),
        ("[[000,001,500,999]]", (0, 1 / 999, 500 / 999, 1), "lion", 999),
        ("[0,1,500,1000]", (0, 0.001, 0.5, 1), "lion", 1000),
        ("(440,60),(650,367)", (440 / 999, 60 / 999, 650 / 999, 367 / 999), "lion", 999),
        ("[-0.010,0.100,1.020,0.900]", (0, 0.1, 1, 0.9), "lion", 1),
    ],
)
def test_notations_and_scales(text: str, box: Box, notation: str, scale: int) -> None:
    parsed = parse_box(text)
    assert parsed is not None
    assert parsed.box == pytest.approx(box)
    assert (parsed.notation, parsed.scale) == (notation, scale)


# The boxes are those of `patch_index_to_coordinate` in transformers' Kosmos-2.
@pytest.mark.parametrize(
    "first, last, box",
    [
        (0, 1023, (0.015625, 0.015625, 0.984375, 0.984375)),
        (44, 863, (0.390625, 0.046875, 0.984375, 0.828125)),
        (5, 5, (0.15625, 0.0, 0.1875, 0.03125)),
        (3, 99, (0.09375, 0.0, 0.125, 0.125)),
        (64, 90, (0.0, 0.0625, 0.84375, 0.09375)),
    ],
)
def test_kosmos2_tokens(first: int, last: int, box: Box) -> None:
    parsed = parse_box(f"<phrase>a cat</phrase><object><patch_index_{first:04d}><patch_index_{last:04d}></object>")
    assert parsed is not None
    assert parsed.notation == "kosmos2"
    assert parsed.box == pytest.approx(box)


@quick
@given(boxes())
def test_location_tokens_keep_a_box_to_half_a_cell(box: Box) -> None:
    parsed = parse_box(format_patches(box))
    assert parsed is not None
    first, last = (int(number) for number in re.findall(r"[0-9]{4}", format_patches(box)))
    one_line = first % 32 == last % 32 or first // 32 == last // 32
    assert parsed.box == pytest.approx(box, abs=(1 / 32 if one_line else 1 / 64) + 0.0006)


def test_location_tokens_survive_lions_three_decimals() -> None:
    """Every column range on a few rows and every row range on a few columns: tokens → box → text → box → tokens."""
    for low in range(32):
        for high in range(low, 32):
            for first, last in ((low, 5 * 32 + high), (low, high), (32 * low, 32 * high + 9), (32 * low, 32 * high)):
                tokens = f"<patch_index_{first:04d}><patch_index_{last:04d}>"
                parsed = parse_box(tokens)
                assert parsed is not None
                again = parse_box(format_box(parsed.box))
                assert again is not None
                assert format_patches(parsed.box) == format_patches(again.box) == tokens


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no box",
        "[0.1,0.2,0.3]",
        "[0.6,0.1,0.4,0.9]",  # swapped
        "[0.1,0.1,0.1,0.9]",  # no area
        "[1.2,1.2,1.4,1.4]",  # nothing of it in the image
        "[12,40,1920,1080]",  # pixels of an unknown image
        "[12.5,40.0,60.0,80.5]",  # percentages
        "[nan,0,1,1]",
        "[1e9,0,1,1]",
        "[0.1,0.2,0.3,__import__('os').getcwd()]",
        "<patch_index_2000><patch_index_0001>",
        "[٠.١,٠.١,٠.٢,٠.٢]",  # digits of another script are no notation of any model
    ],
)
def test_unreadable(text: str) -> None:
    assert parse_box(text) is None


def test_the_first_readable_box_counts() -> None:
    parsed = parse_box("[0.5,0.5,0.1,0.1] or [0.100,0.200,0.300,0.400] or [0,0,1,1]")
    assert parsed is not None
    assert parsed.box == (0.1, 0.2, 0.3, 0.4)
    assert len(list(find_boxes("[0,0,0.5,0.5] [0.5,0.5,1,1]"))) == 2


@pytest.mark.parametrize(
    "hostile", ["[" * 200_000, "[0," * 70_000, "[0.1," + " " * 200_000, "1" * 200_000, "[0.1,0.1](" * 20_000]
)
def test_hostile_text_takes_linear_time(hostile: str) -> None:
    started = time.process_time()
    assert parse_box(hostile) is None
    assert time.process_time() - started < 2.0


@quick
@given(st.text(max_size=200))
def test_any_text_is_read_without_error(text: str) -> None:
    for parsed in find_boxes(text):
        assert clip(parsed.box) == parsed.box


@quick
@given(boxes(), boxes())
def test_iou_is_symmetric_and_bounded(first: Box, second: Box) -> None:
    assert iou(first, second) == pytest.approx(iou(second, first))
    assert 0 <= iou(first, second) <= 1
    assert iou(first, first) == pytest.approx(1)


def test_iou_of_known_boxes() -> None:
    assert iou((0, 0, 0.5, 1), (0.25, 0, 0.75, 1)) == pytest.approx(1 / 3)
    assert iou((0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)) == 0
    assert iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0


def test_normalise_cuts_to_the_image() -> None:
    assert normalise_xywh([10, 20, 30, 40], 100, 200) == pytest.approx((0.1, 0.1, 0.4, 0.3))
    assert normalise_xywh([90, -5, 20, 30], 100, 100) == pytest.approx((0.9, 0, 1, 0.25))


@pytest.mark.parametrize("box", [[100, 0, 10, 10], [0, 0, 0, 5], [5, 5, -2, 2], [0, 0, math.nan, 1], [1, 2, 3]])
def test_normalise_refuses_boxes_without_area_in_the_image(box: list[float]) -> None:
    with pytest.raises(ValueError, match="box"):
        normalise_xywh(box, 100, 100)


def test_normalise_refuses_images_without_size() -> None:
    with pytest.raises(ValueError, match="image size"):
        normalise_xywh([0, 0, 1, 1], 0, 100)


@pytest.mark.parametrize("box", [[0.1, 0.2, 0.3], [0.5, 0.1, 0.4, 0.2], [0.1, math.inf, 0.2, 0.3]])
def test_format_refuses_what_is_no_box(box: list[float]) -> None:
    for write in (format_box, format_patches):
        with pytest.raises(ValueError):
            write(box)
