"""Flips and crops: boxes stay on their objects, directions are swapped, uncertain samples stay unchanged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.instructions.templates import TASKS
from pipelines.sources.boxes import Box, format_box, iou, parse_box
from pipelines.sources.grounding import Span, from_kosmos2, from_lion, from_markdown, write
from pipelines.training.augmentation import LEAST_SIDE, augment, can_crop, can_flip

BOX = (0.1, 0.2, 0.3, 0.6)


def picture(box: Box, size: tuple[int, int] = (200, 100)) -> Image.Image:
    """Return a black image with the object as a white box."""
    image = Image.new("L", size)
    left, top, right, bottom = (round(value * side) for value, side in zip(box, (*size, *size), strict=True))
    image.paste(255, (left, top, right, bottom))
    return image


def seen(image: Image.Image) -> Box:
    """Return the box of the white object."""
    bounds = image.getbbox()
    assert bounds is not None
    return (bounds[0] / image.width, bounds[1] / image.height, bounds[2] / image.width, bounds[3] / image.height)


def always(text: str, answer: str, task: str = "rec", seed: int = 0, **shares: float) -> tuple[Image.Image, str, str]:
    shares = {"flip": 1.0, "crop": 1.0, **shares}
    return augment(picture(BOX), text, answer, task, np.random.default_rng(seed), **shares)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(0, 12), st.integers(2, 7), st.integers(2, 7))
def test_the_box_stays_on_its_object(seed: int, x: int, y: int, width: int, height: int) -> None:
    box = (x / 20, y / 20, (x + width) / 20, (y + height) / 20)
    image, _, answer = augment(picture(box), "Where is the cup?", f"Answer: {format_box(box)}", "rec",
                               np.random.default_rng(seed))  # fmt: skip
    parsed = parse_box(answer)
    assert parsed is not None
    assert iou(parsed.box, seen(image)) > 0.97
    assert image.width >= LEAST_SIDE * 200
    assert image.height >= LEAST_SIDE * 100


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("man on left", "man on right"),
        ("Left guy, leftmost cup", "Right guy, rightmost cup"),
        ("the right-hand door LEFT of the cat", "the left-hand door RIGHT of the cat"),
        ("bright leftover stuff", "bright leftover stuff"),
    ],
)
def test_directions_are_swapped_with_the_picture(before: str, after: str) -> None:
    image, instruction, answer = always(before, f"Answer: {format_box(BOX)}", crop=0.0)
    assert instruction == after
    assert answer == "Answer: [0.700,0.200,0.900,0.600]"
    assert seen(image) == pytest.approx((0.7, 0.2, 0.9, 0.6))


@pytest.mark.parametrize(
    "text",
    ["dog right behind the man", "the man who left", "that is all right", "cup that is left", "sign that says stop",
     "player 23", "the letter b", "clock on the wall", "guy on l", "the east window", 'bus with "A"'],
)  # fmt: skip
def test_what_a_mirror_would_make_wrong_is_not_flipped(text: str) -> None:
    assert not can_flip(text)
    image, instruction, answer = always(text, f"Answer: {format_box(BOX)}", crop=0.0)
    assert (instruction, answer) == (text, f"Answer: {format_box(BOX)}")
    assert seen(image) == pytest.approx(BOX)


@pytest.mark.parametrize("text", ["man on left", "the nearest cup", "second dog", "cup in the middle", "top corner"])
def test_what_depends_on_the_frame_is_not_cropped(text: str) -> None:
    assert not can_crop(text)
    image, _, _ = always(text, f"Answer: {format_box(BOX)}", flip=0.0)
    assert image.size == (200, 100)


@pytest.mark.parametrize("task", ["rec", "reg"])
def test_no_phrasing_stands_in_the_way(task: str) -> None:
    for wording in TASKS[task].train:
        question = wording.replace("{text}", "red cup").replace("{box}", format_box(BOX))
        assert can_flip(question)
        assert can_crop(question)


@pytest.mark.parametrize("notation", ["lion", "markdown", "kosmos2"])
def test_all_boxes_of_a_phrase_move_and_keep_their_notation(notation: str) -> None:
    other = (0.5, 0.25, 0.75, 0.5)
    caption = write([Span("two cups", BOX, (other,)), Span(" on a table")], notation)  # type: ignore[arg-type]
    _, _, answer = always("Describe the image.", caption, "grounded_caption")
    read = {"lion": from_lion, "markdown": from_markdown, "kosmos2": from_kosmos2}[notation](answer)
    assert [span.text for span in read] == ["two cups", " on a table"]
    near = 0.05 if notation == "kosmos2" else 0.001
    for box, before in zip(read[0].boxes, (BOX, other), strict=True):
        assert box == pytest.approx((1 - before[2], before[1], 1 - before[0], before[3]), abs=near)


def test_no_notation_stands_in_the_way_of_a_flip_or_a_crop() -> None:
    question = "Give the box <phrase>phrase</phrase><object><patch_index_first><patch_index_last></object> of: red cup."
    answer = "Answer: <phrase>red cup</phrase><object><patch_index_0099><patch_index_0617></object>"
    assert can_flip(question, answer)
    assert can_crop(question, answer)


@pytest.mark.parametrize("notation", ["lion", "markdown", "kosmos2"])
def test_every_notation_moves(notation: str) -> None:
    caption = write([Span("a cup", BOX), Span(" on a table")], notation)  # type: ignore[arg-type]
    image, _, answer = always("Describe the image.", caption, "grounded_caption")
    parsed = parse_box(answer)
    assert parsed is not None
    assert image.size == (200, 100), "a grounded caption is never cropped"
    assert iou(parsed.box, seen(image)) > (0.8 if notation == "kosmos2" else 0.99)
    assert answer.count("a cup") == 1


def test_the_region_in_a_question_moves_as_well() -> None:
    image, instruction, answer = always(f"What is at {format_box(BOX)}?", "red cup", "reg")
    parsed = parse_box(instruction)
    assert parsed is not None
    assert iou(parsed.box, seen(image)) > 0.97
    assert answer == "red cup"


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("vqa", "left"),
        ("caption", "a man on the left"),
        ("rec", "Answer: (10,20),(300,600)"),
        ("rec", "Answer: [10,20,300,600]"),
        ("rec", f"{format_box(BOX)} or [10,20,300,600]"),
        ("rec", "Answer: [0.1,0.2,0.3,0.2,0.3,0.6,0.1,0.6]"),
    ],
)
def test_other_samples_stay_as_they_are(task: str, answer: str) -> None:
    image, instruction, text = always("What?", answer, task)
    assert (instruction, text, seen(image)) == ("What?", answer, pytest.approx(BOX))


def test_the_same_generator_state_gives_the_same_sample() -> None:
    first, second = (always("red cup", f"Answer: {format_box(BOX)}", seed=5, flip=0.5, crop=0.5) for _ in range(2))
    assert first[1:] == second[1:]
    assert first[0].tobytes() == second[0].tobytes()
