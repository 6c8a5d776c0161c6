"""Referring expressions that identify exactly one object: each is a query that is run against its scene."""

import random
from dataclasses import dataclass
from typing import Literal

from pipelines.sample_world.language import DIRECTIONS, Direction, is_loosely, is_strictly
from pipelines.sample_world.scenes import Scene, SceneObject

ExpressionKind = Literal["attribute", "place", "relation"]

_MARGIN = 0.06  # of the image's side: an outermost object must be ahead of the next one by at least this much

_RELATION_PHRASES: dict[Direction, tuple[str, ...]] = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_PLACE_PHRASES: dict[Direction, tuple[str, ...]] = {
    "left": ("leftmost {}", "{} on the far left"),
    "right": ("rightmost {}", "{} on the far right"),
    "above": ("topmost {}", "{} at the very top"),
    "below": ("lowest {}", "{} at the very bottom"),
}


@dataclass(frozen=True)
class Expression:
    """A description of an object. Attributes that are None match every value.

    Attributes:
        size, color, shape: attributes of the object.
        extreme: the object is the outermost one on this side; not together with `relation`.
        relation: the object is on this side of the object that `anchor` describes.
        anchor: description of the other object; set if and only if `relation` is.
    """

    size: str | None = None
    color: str | None = None
    shape: str | None = None
    extreme: Direction | None = None
    relation: Direction | None = None
    anchor: "Expression | None" = None

    def has_attributes_of(self, item: SceneObject) -> bool:
        """Return whether size, color and shape of an object match."""
        return (
            (self.shape is None or self.shape == item.shape)
            and (self.color is None or self.color == item.color)
            and (self.size is None or self.size == item.size)
        )

    def candidates(self, scene: Scene) -> list[SceneObject]:
        """Return every object that a reader could understand by the description, with generous margins."""
        matches = [item for item in scene.objects if self.has_attributes_of(item)]
        if self.extreme is not None:
            matches = _furthest(matches, self.extreme, scene)
        if self.relation is not None and self.anchor is not None:
            anchors = self.anchor.candidates(scene)
            if len(anchors) != 1:
                return []
            matches = [item for item in matches if item != anchors[0] and is_loosely(self.relation, item, anchors[0])]
        return matches

    def refers_to(self, scene: Scene, target: SceneObject) -> bool:
        """Return whether the description matches `target` strictly, and no other object even loosely."""
        if self.candidates(scene) != [target]:
            return False
        if self.relation is None or self.anchor is None:
            return True
        return is_strictly(self.relation, target, self.anchor.candidates(scene)[0])

    def text(self, rng: random.Random) -> str:
        """Return the description in words, without an article in front."""
        noun = " ".join(word for word in (self.size, self.color, self.shape or "object") if word)
        if self.extreme is not None:
            return rng.choice(_PLACE_PHRASES[self.extreme]).format(noun)
        if self.relation is not None and self.anchor is not None:
            return f"{noun} {rng.choice(_RELATION_PHRASES[self.relation])} the {self.anchor.text(rng)}"
        return noun


def _furthest(items: list[SceneObject], side: Direction, scene: Scene) -> list[SceneObject]:
    """Return the object that is furthest to a side, and the objects that are nearly as far."""
    axis, extent = (0, scene.width) if side in ("left", "right") else (1, scene.height)
    sign = -1 if side in ("left", "above") else 1
    most = max((sign * item.center[axis] for item in items), default=0.0)
    return [item for item in items if sign * item.center[axis] >= most - _MARGIN * extent]


def descriptions(item: SceneObject) -> list[Expression]:
    """Return the descriptions of an object by its attributes, shortest first."""
    return [
        Expression(shape=item.shape),
        Expression(color=item.color, shape=item.shape),
        Expression(size=item.size, shape=item.shape),
        Expression(size=item.size, color=item.color, shape=item.shape),
    ]


def expressions_for(scene: Scene, target: SceneObject, rng: random.Random) -> list[tuple[ExpressionKind, str]]:
    """Return at most one expression of each kind that identifies `target`, with its kind; possibly none."""
    expressions: list[tuple[ExpressionKind, str]] = []
    by_attribute = [query for query in descriptions(target) if query.refers_to(scene, target)][:2]
    if by_attribute:
        expressions.append(("attribute", rng.choice(by_attribute).text(rng)))
    others: list[tuple[ExpressionKind, list[Expression]]] = [
        ("place", _by_place(scene, target)),
        ("relation", _by_relation(scene, target)),
    ]
    for kind, queries in others:
        rng.shuffle(queries)
        match = next((query for query in queries if query.refers_to(scene, target)), None)
        if match is not None:
            expressions.append((kind, match.text(rng)))
    return expressions


def _by_place(scene: Scene, target: SceneObject) -> list[Expression]:
    """Return descriptions of the target as the outermost of at least two objects on some side."""
    heads = (Expression(), Expression(shape=target.shape), Expression(color=target.color))
    return [
        Expression(color=head.color, shape=head.shape, extreme=side)
        for head in heads
        if sum(head.has_attributes_of(item) for item in scene.objects) > 1
        for side in DIRECTIONS
    ]


def _by_relation(scene: Scene, target: SceneObject) -> list[Expression]:
    """Return descriptions of the target by its relation to an object that color and shape identify."""
    return [
        Expression(
            color=color, shape=target.shape, relation=side, anchor=Expression(color=item.color, shape=item.shape)
        )
        for item in scene.objects
        if sum(other.name == item.name for other in scene.objects) == 1 and item != target
        for side in DIRECTIONS
        if is_strictly(side, target, item)
        for color in (None, target.color)
    ]
