"""Boxes as text: written boxes are read back, other notations and scales are read, hostile text is harmless."""

import json
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sample_world.scenes import PRESETS, PresetName, make_scene
from pipelines.sources.boxes import (
    AUTO,
    UNREADABLE,
    Box,
    BoxFormat,
    clip,
    find_boxes,
    format_box,
    format_patches,
    iou,
    normalize_xywh,
    parse_box,
    read_box,
    scan,
)

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
        ("(0.44,0.06),(0.65,0.367)", (0.44, 0.06, 0.65, 0.367), "lion", 1),
        ("[[0.44,0.06],[0.65,0.367]]", (0.44, 0.06, 0.65, 0.367), "lion", 1),
        ("[a cat](0.1,0.1,0.2,0.2)(0.44,0.06,0.65,0.367)", (0.1, 0.1, 0.2, 0.2), "markdown", 1),
        ("[-0.010,0.100,1.020,0.900]", (0, 0.1, 1, 0.9), "lion", 1),
    ],
)
def test_notations_and_scales(text: str, box: Box, notation: str, scale: int) -> None:
    parsed = parse_box(text)
    assert parsed is not None
    assert parsed.box == pytest.approx(box)
    assert (parsed.notation, parsed.scale) == (notation, scale)


@pytest.mark.parametrize(
    "text",
    [
        "[0.5775173611111111, 0.10416666666666667, 0.6003125000000000123456789, 0.8854166666666666]",
        "[5.775173611111111e-1,1.0416666666666667E-01,+0.6003125,.88541666666666660]",
        "[+0.5775173611111111 0.10416666666666667 0.6003125 0.8854166666666666]",
        "[0.5775173611111111,\n      0.10416666666666667,\n      0.6003125,\r\n 0.8854166666666666\n]",
        "[  0.5775173611111111 ;\t0.10416666666666667 ;          0.6003125 ; 0.8854166666666666  ]",
        "(0.5775173611111111 0.10416666666666667), (0.6003125 0.8854166666666666)",
    ],
)
def test_numbers_of_any_length_exponents_signs_and_blanks(text: str) -> None:
    parsed = parse_box(text)
    assert parsed is not None
    assert parsed.box == pytest.approx((0.5775173611111111, 0.10416666666666667, 0.6003125, 0.8854166666666666))


@quick
@given(boxes())
def test_the_printed_numbers_of_python_are_read_exactly(box: Box) -> None:
    for text in (str(list(box)), repr(box), " ".join(map(repr, box)).join("[]"), json.dumps(box, indent=2)):
        assert read_box(text) == box


@pytest.mark.parametrize(
    "text, form, size, box",
    [
        ("[200,300,600,700]", BoxFormat(1000), None, (0.2, 0.3, 0.6, 0.7)),
        ("[200,300,600,700]", BoxFormat(999), None, (200 / 999, 300 / 999, 600 / 999, 700 / 999)),
        ("[200.5,300,600,700]", BoxFormat(1000), None, (0.2005, 0.3, 0.6, 0.7)),
        ("[64, 48, 320, 240]", BoxFormat("pixels"), (640, 480), (0.1, 0.1, 0.5, 0.5)),
        ("<box>(440,60),(650,367)</box>", BoxFormat(1000), None, (0.44, 0.06, 0.65, 0.367)),
        ("<box>[[16, 42, 172, 458]]</box>", BoxFormat(1000), None, (0.016, 0.042, 0.172, 0.458)),
        ('[{"box_2d": [100, 200, 300, 400]}]', BoxFormat(1000, "yxyx"), None, (0.2, 0.1, 0.4, 0.3)),
        ('[{"bbox_2d": [10, 20, 111, 218]}]', BoxFormat("pixels"), (644, 476),
         (10 / 644, 20 / 476, 111 / 644, 218 / 476)),
        ("[0.25, 0.5, 0.5, 0.25]", BoxFormat(1, "xywh"), None, (0.25, 0.5, 0.75, 0.75)),
        ("[0,0,1,1]", BoxFormat(1000), None, (0, 0, 0.001, 0.001)),  # a setting holds even where the text says 0-1
        ("<patch_index_0044><patch_index_0863>", BoxFormat(1000, "yxyx"), None,
         (0.390625, 0.046875, 0.984375, 0.828125)),
    ],
)  # fmt: skip
def test_scale_and_order_are_a_setting(text: str, form: BoxFormat, size: Any, box: Box) -> None:
    assert read_box(text, form, size) == pytest.approx(box)


@pytest.mark.parametrize("text", ["[200,300,600,700]", "(440,60),(650,367)", "[0,1,500,1000]", "[12,40,1920,1080]",
                                  "[12.5,40.0,60.0,80.5]", "[1e2,0,1,1]", "[2,2,3,3]"])  # fmt: skip
def test_a_scale_that_the_text_does_not_show_is_not_guessed(text: str) -> None:
    assert read_box(text) == "scale_unknown"


@pytest.mark.parametrize(
    "text, form, reason",
    [
        ("no idea", AUTO, "no_box"),
        ("[0.1,0.2,0.3,0.4", AUTO, "no_box"),
        ("[0.1,0.2,0.3]", AUTO, "too_few_numbers"),
        ("(0.1,0.2)", AUTO, "too_few_numbers"),
        ("[0.1,0.2,0.3,0.4,0.9]", AUTO, "too_many_numbers"),
        ("[0.1,0.2,0.3,0.2,0.3,0.4,0.1,0.4]", AUTO, "too_many_numbers"),
        ("(0.1,0.2),(0.3,0.3),(0.3,0.4),(0.1,0.4)", AUTO, "too_many_numbers"),  # a quadrilateral: not its first corners
        ("[[0.1,0.2],[0.3,0.3],[0.3,0.4],[0.1,0.4]]", AUTO, "too_many_numbers"),
        ("[200,300,600,700]", AUTO, "scale_unknown"),
        ("[0.6,0.1,0.4,0.9]", AUTO, "swapped_corners"),
        ("[0.1,0.6,0.4,0.2]", AUTO, "swapped_corners"),
        ("[0.1,0.1,-0.4,0.9]", BoxFormat(1, "xywh"), "swapped_corners"),
        ("[0.1,0.1,0.1,0.9]", AUTO, "no_area"),
        ("[1.2,1.2,1.4,1.4]", AUTO, "outside"),
        ("[0.2,0.2,0.4,1.6]", BoxFormat(1), "outside"),
        ("[200,300,600,700]", BoxFormat(1), "outside"),
        ("[-0.6,0.2,0.4,0.6]", AUTO, "outside"),
        ("[1e999,1,1,1e999]", BoxFormat(1000), "swapped_corners"),
        ("[0,0,1e999,1e999]", BoxFormat(1000), "outside"),
        ("<patch_index_2000><patch_index_0001>", AUTO, "outside"),
        ("<patch_index_0863><patch_index_0044>", AUTO, "swapped_corners"),
    ],
)
def test_what_is_unreadable_has_a_reason(text: str, form: BoxFormat, reason: str) -> None:
    assert read_box(text, form) == reason
    assert reason in UNREADABLE


def test_several_boxes_in_one_list_are_not_one_quadrilateral() -> None:
    text = "[[0.1,0.1,0.2,0.2],[0.3,0.3,0.4,0.4],[0.5,0.5,0.6,0.6]]"
    assert [parsed.box[0] for parsed in find_boxes(text)] == [0.1, 0.3, 0.5]


def test_boxes_in_pixels_need_a_size() -> None:
    with pytest.raises(ValueError, match="width and height"):
        read_box("[12,40,300,400]", BoxFormat("pixels"))


@pytest.mark.parametrize("values", [{"scale": 100}, {"scale": True}, {"order": "yxhw"}])
def test_an_unknown_scale_or_order_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        BoxFormat(**values)


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
    """Convert tokens → box → text → box → tokens, for every column range on a few rows and the reverse."""
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


_HOSTILE = [
    "[", "[0,", "[0.1 ", " ", "1", "0.", "1e", "-", ",", "[[0,0", "[0.1,0.1](", "(1,1),", "(1,1),(1,1", "((", "[1 2  ",
    "[+", "<patch_index_0001>", "[<patch_index_0001>  ", "<patch_index_0001> ", "[0,0,0,0,", "{.1;", "\n",
]  # fmt: skip


def seconds_to_read(text: str) -> float:
    """Return the smaller of two times, because other processes of the machine only make a time longer."""
    times = []
    for _ in range(2):
        started = time.process_time()
        assert sum(1 for _ in scan(text)) <= len(text)
        times.append(time.process_time() - started)
    return min(times)


@pytest.mark.parametrize("piece", _HOSTILE)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    """Check that four times the text takes about four times as long. A quadratic reader would take sixteen times."""
    long, short = ("[0.1,(" + piece * (length // len(piece)) for length in (1_000_000, 250_000))
    assert seconds_to_read(long) < 8 * seconds_to_read(short) + 0.05


def test_a_megabyte_of_hostile_text_takes_no_longer_than_a_megabyte_of_boxes() -> None:
    prose = "a black cat [0.440,0.060,0.650,0.367] beside a dog, "
    plain = seconds_to_read(prose * (1_000_000 // len(prose)))
    for head in ("[0.1,", "("):
        for piece in ("[", "0,", " ", "1", "1 2  ", "<patch_index_0001>"):
            assert seconds_to_read(head + piece * (1_000_000 // len(piece))) < 4 * plain + 0.05, (head, piece)


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


def test_normalize_cuts_to_the_image() -> None:
    assert normalize_xywh([10, 20, 30, 40], 100, 200) == pytest.approx((0.1, 0.1, 0.4, 0.3))
    assert normalize_xywh([90, -5, 20, 30], 100, 100) == pytest.approx((0.9, 0, 1, 0.25))


@pytest.mark.parametrize("box", [[100, 0, 10, 10], [0, 0, 0, 5], [5, 5, -2, 2], [0, 0, math.nan, 1], [1, 2, 3]])
def test_normalize_refuses_boxes_without_area_in_the_image(box: list[float]) -> None:
    with pytest.raises(ValueError, match="box"):
        normalize_xywh(box, 100, 100)


def test_normalize_refuses_images_without_size() -> None:
    with pytest.raises(ValueError, match="image size"):
        normalize_xywh([0, 0, 1, 1], 0, 100)


@pytest.mark.parametrize("box", [[0.1, 0.2, 0.3], [0.5, 0.1, 0.4, 0.2], [0.1, math.inf, 0.2, 0.3]])
def test_format_refuses_other_values_than_boxes(box: list[float]) -> None:
    for write in (format_box, format_patches):
        with pytest.raises(ValueError):
            write(box)


def shares_after_the_grid(truth: Sequence[Box]) -> tuple[float, float, float]:
    """Return the best scores of Kosmos-2's tokens: acc@0.5, acc@0.75 and the mean IoU of boxes with themselves."""
    overlaps = [iou(box, parsed.box) for box in truth for parsed in find_boxes(format_patches(box))]
    assert len(overlaps) == len(truth)
    hits = [sum(overlap >= threshold for overlap in overlaps) / len(truth) for threshold in (0.5, 0.75)]
    return hits[0], hits[1], sum(overlaps) / len(truth)


def test_the_grid_costs_on_coco_what_the_docs_say(shared: Path) -> None:
    document = json.loads((shared / "data/coco/instances.json").read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    truth = [normalize_xywh(entry["bbox"], *sizes[entry["image_id"]]) for entry in document["annotations"]]
    assert shares_after_the_grid(truth) == pytest.approx((0.723, 0.421, 0.651), abs=0.0006)


def test_the_grid_costs_on_refcoco_what_the_docs_say(shared: Path) -> None:
    lines = (shared / "data/refcoco/refcoco_val.jsonl").read_text().splitlines()
    truth = [normalize_xywh(json.loads(line)["bbox_xywh"], 640, 640) for line in lines]
    assert shares_after_the_grid(truth) == pytest.approx((1.0, 0.994, 0.895), abs=0.0006)


@pytest.mark.parametrize("preset, shares", [("tiny", (1.0, 1.0, 0.868)), ("small", (1.0, 0.895, 0.837))])
def test_the_grid_costs_on_the_sample_world_what_the_docs_say(
    preset: PresetName, shares: tuple[float, float, float]
) -> None:
    scenes = [make_scene(0, "test", index, PRESETS[preset]) for index in range(1000)]
    truth = [
        normalize_xywh((item.x, item.y, item.width, item.height), scene.width, scene.height)
        for scene in scenes
        for item in scene.objects
    ]
    assert shares_after_the_grid(truth) == pytest.approx(shares, abs=0.0006)
