"""Boxes of answers, drawn on pictures."""

import numpy as np
from PIL import Image

from pipelines.inference.drawing import boxes_of, draw_boxes
from pipelines.sources.grounding import Span


def test_boxes_of_an_answer() -> None:
    assert boxes_of("Answer: [0.100,0.200,0.300,0.400]", "a dog") == [Span("a dog", (0.1, 0.2, 0.3, 0.4))]
    assert boxes_of("no idea", "a dog") == []
    grounded = "a dog [0.100,0.200,0.300,0.400] and a cat [0.500,0.500,1.000,1.000]"
    assert [span.text for span in boxes_of(grounded, None)] == ["a dog", "and a cat"]
    assert [span.text for span in boxes_of("[a dog](0.1,0.2,0.3,0.4) runs", None)] == ["a dog"]


def test_kosmos2_and_several_boxes_of_a_phrase_are_drawn() -> None:
    answer = (
        "<phrase>two dogs</phrase><object><patch_index_0044><patch_index_0863></delimiter_of_multi_objects/>"
        "<patch_index_0005><patch_index_0911></object> run"
    )
    assert boxes_of(answer, None) == [
        Span("two dogs", (0.390625, 0.046875, 0.984375, 0.828125)),
        Span("two dogs", (0.171875, 0.015625, 0.484375, 0.890625)),
    ]
    picture = Image.new("RGB", (200, 100), "black")
    both = np.asarray(draw_boxes(picture, [Span("", (0.0, 0.0, 0.2, 0.9), ((0.8, 0.0, 1.0, 0.9),))], least=1))
    assert both[:, :50].any()
    assert both[:, 150:].any()


def test_the_box_is_drawn_where_it_is_and_the_picture_stays() -> None:
    picture = Image.new("RGB", (200, 100), "black")
    drawn = draw_boxes(picture, [Span("", (0.25, 0.2, 0.75, 0.8))], least=1)
    changed = np.argwhere(np.asarray(drawn).any(axis=2))
    (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0)
    assert np.abs(np.array([left, top, right, bottom]) - [50, 20, 149, 79]).max() <= 3
    assert drawn.getpixel((100, 50)) == (0, 0, 0)
    assert not np.asarray(picture).any()


def test_a_label_stays_inside_the_picture() -> None:
    picture = Image.new("RGB", (120, 80), "black")
    at_the_corner = draw_boxes(picture, [Span("a very long phrase indeed", (0.9, 0.0, 1.0, 0.1))], least=1)
    assert np.asarray(at_the_corner)[:20, :60].any()
    assert at_the_corner.size == picture.size


def test_a_small_picture_is_enlarged_by_a_whole_factor() -> None:
    assert draw_boxes(Image.new("RGB", (60, 40)), []).size == (360, 240)
    assert draw_boxes(Image.new("RGB", (500, 10)), []).size == (500, 10)
