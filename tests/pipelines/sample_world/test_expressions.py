"""Referring expressions identify one object, checked by a parser that shares no code with the generator."""

import random
import re
from collections import Counter

from pipelines.sample_world.entries import Entry
from pipelines.sample_world.expressions import Expression, expressions_for
from pipelines.sample_world.scenes import COLORS, SHAPES, Scene, SceneObject

_DESCRIPTION = rf"(?:(small|large) )?(?:({'|'.join(COLORS)}) )?({'|'.join(SHAPES)}|object)"
_SIDES = {
    "left of": (0, -1), "to the left of": (0, -1), "leftmost": (0, -1), "on the far left": (0, -1),
    "right of": (0, 1), "to the right of": (0, 1), "rightmost": (0, 1), "on the far right": (0, 1),
    "above": (1, -1), "over": (1, -1), "topmost": (1, -1), "at the very top": (1, -1),
    "below": (1, 1), "under": (1, 1), "lowest": (1, 1), "at the very bottom": (1, 1),
}  # fmt: skip
_SENTENCE = re.compile(
    rf"(?:(leftmost|rightmost|topmost|lowest) )?{_DESCRIPTION}"
    rf"(?: (on the far left|on the far right|at the very top|at the very bottom))?"
    rf"(?: (left of|to the left of|right of|to the right of|above|over|below|under) the {_DESCRIPTION})?"
)


def _described(scene: Scene, size: str | None, color: str | None, shape: str) -> list[SceneObject]:
    return [
        item
        for item in scene.objects
        if size in (None, item.size) and color in (None, item.color) and shape in ("object", item.shape)
    ]


def referents(scene: Scene, text: str) -> list[SceneObject]:
    """Parse an expression and return every object that it can refer to."""
    match = _SENTENCE.fullmatch(text)
    assert match, f"not in the grammar: {text}"
    before, size, color, shape, behind, relation, *anchor = match.groups()
    items = _described(scene, size, color, shape)
    if side := before or behind:
        axis, sign = _SIDES[side]
        items = [max(items, key=lambda item: sign * item.center[axis])]
    if relation:
        (other,) = _described(scene, anchor[0], anchor[1], anchor[2])
        axis, sign = _SIDES[relation]
        items = [item for item in items if item != other and sign * (item.center[axis] - other.center[axis]) >= 0]
    return items


def test_every_expression_identifies_its_object(entries: list[Entry]) -> None:
    checked = 0
    for entry in entries:
        for number, texts in entry.expressions:
            for text in texts:
                checked += 1
                assert referents(entry.scene, text) == [entry.scene.objects[number]], (text, entry.scene)
    assert checked > 5 * len(entries)


def test_all_kinds_are_frequent(entries: list[Entry]) -> None:
    kinds: Counter[str] = Counter()
    for entry in entries:
        for item in entry.scene.objects:
            kinds.update(kind for kind, _ in expressions_for(entry.scene, item, random.Random(0)))
    assert min(kinds[kind] for kind in ("attribute", "place", "relation")) > 400


def _object(x: int, y: int, shape: str = "circle", color: str = "red") -> SceneObject:
    return SceneObject(shape, color, "small", x, y, 11, 11)


def test_an_ambiguous_expression_refers_to_nothing() -> None:
    left, right, star = _object(10, 10), _object(40, 10), _object(12, 60, "star", "blue")
    scene = Scene(96, 96, "white", (left, right, star))
    circle = Expression(shape="circle")
    assert not circle.refers_to(scene, left)
    assert Expression(shape="circle", extreme="left").refers_to(scene, left)
    assert not Expression(shape="circle", extreme="above").refers_to(scene, left), "both are at the top"
    assert Expression(shape="circle", relation="right", anchor=Expression(shape="star")).refers_to(scene, right)
    assert not Expression(shape="circle", relation="above", anchor=Expression(shape="star")).refers_to(scene, left)
    assert not Expression(shape="star", relation="below", anchor=circle).refers_to(scene, star), "two anchors"


def test_an_object_that_is_nearly_as_far_makes_it_ambiguous() -> None:
    scene = Scene(96, 96, "white", (_object(10, 10), _object(13, 40), _object(60, 60, "star")))
    assert not Expression(shape="circle", extreme="left").refers_to(scene, scene.objects[0])
