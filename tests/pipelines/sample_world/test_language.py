"""Captions: five for each image, all different, and true of the scene."""

import re
from collections import Counter

import pytest

from pipelines.sample_world.entries import Entry
from pipelines.sample_world.language import counted, joined, plural, with_article
from pipelines.sample_world.scenes import COLORS, SHAPES, Scene

_NAME = rf"(?:{'|'.join(COLORS)}) (?:{'|'.join(SHAPES)})"
_RELATION = re.compile(rf"an? ({_NAME})(?: is| sits)? (to the left of|to the right of|above|below) an? ({_NAME})")
_AXIS = {"to the left of": (0, -1), "to the right of": (0, 1), "above": (1, -1), "below": (1, 1)}


def test_plurals_articles_numbers_and_lists() -> None:
    assert (plural("cross"), plural("red star")) == ("crosses", "red stars")
    assert (with_article("orange star"), with_article("red ellipse")) == ("an orange star", "a red ellipse")
    assert (counted(1, "ellipse"), counted(2, "cross")) == ("an ellipse", "two crosses")
    assert (joined(["a"]), joined(["a", "b", "c"])) == ("a", "a, b and c")


def test_five_different_captions_in_lower_case(entries: list[Entry]) -> None:
    for entry in entries:
        assert len(set(entry.captions)) == 5
        assert all(text == text.lower() and not text.endswith(".") and "  " not in text for text in entry.captions)


def test_captions_name_only_shapes_and_colors_of_the_scene(entries: list[Entry]) -> None:
    for entry in entries:
        words = set(re.findall(r"[a-z]+", " ".join(entry.captions).replace(entry.scene.background, "")))
        present = {value for item in entry.scene.objects for value in (item.shape, item.color)}
        named = words | {word.removesuffix("s") for word in words} | {word.removesuffix("es") for word in words}
        assert named & {*SHAPES, *COLORS} <= present


def test_listings_count_every_object(entries: list[Entry]) -> None:
    for entry in entries:
        names = Counter(item.name for item in entry.scene.objects)
        parts = [counted(number, name) for name, number in names.items()]
        assert any(all(part in text for part in parts) for text in entry.captions)


@pytest.mark.parametrize("every", [3])
def test_relations_are_true(entries: list[Entry], every: int) -> None:
    checked = 0
    for entry in entries[::every]:
        for text in entry.captions:
            if match := _RELATION.fullmatch(text):
                checked += 1
                assert _holds(entry.scene, *match.groups())
    assert checked == len(entries[::every])


def _holds(scene: Scene, name: str, relation: str, anchor: str) -> bool:
    axis, sign = _AXIS[relation]
    firsts = [item for item in scene.objects if item.name == name]
    seconds = [item for item in scene.objects if item.name == anchor]
    return any(sign * (a.center[axis] - b.center[axis]) > 0 for a in firsts for b in seconds if a != b)
