"""Text about scenes: names of positions and relations, and five captions that each describe another aspect."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pipelines.sample_world.scenes import Scene, SceneObject

Direction = Literal["left", "right", "above", "below"]
DIRECTIONS: tuple[Direction, ...] = ("left", "right", "above", "below")
OPPOSITE: Mapping[Direction, Direction] = {"left": "right", "right": "left", "above": "below", "below": "above"}
RELATION_WORDS: Mapping[Direction, str] = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_ROWS = ("top", "middle", "bottom")
_COLUMNS = ("left", "center", "right")


def plural(noun: str) -> str:
    """Return the plural of a noun."""
    return noun + ("es" if noun.endswith("s") else "s")


def with_article(noun: str) -> str:
    """Return the noun with "a" or "an"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def counted(number: int, noun: str) -> str:
    """Return a number of things in words, for example "a red circle" or "two red circles"."""
    return with_article(noun) if number == 1 else f"{NUMBERS[number]} {plural(noun)}"


def joined(parts: Sequence[str]) -> str:
    """Join the parts with commas and "and", for example "a red circle, a star and a cross"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def is_strictly(direction: Direction, item: SceneObject, anchor: SceneObject) -> bool:
    """Return whether the whole of `item` is on the side `direction` of the whole of `anchor`."""
    (x1, y1, x2, y2), (ax1, ay1, ax2, ay2) = item.box, anchor.box
    return {"left": x2 <= ax1, "right": x1 >= ax2, "above": y2 <= ay1, "below": y1 >= ay2}[direction]


def is_loosely(direction: Direction, item: SceneObject, anchor: SceneObject) -> bool:
    """Return whether a person might agree: the center of `item` is on this side of the center of `anchor`, or level."""
    (x, y), (ax, ay) = item.center, anchor.center
    return {"left": x <= ax, "right": x >= ax, "above": y <= ay, "below": y >= ay}[direction]


def position_text(item: SceneObject, scene: Scene) -> str:
    """Return the object's cell of a 3 × 3 grid in words: "in the top left corner", "on the right side"."""
    column = _COLUMNS[int(3 * item.center[0] / scene.width)]
    row = _ROWS[int(3 * item.center[1] / scene.height)]
    if row == "middle":
        return "in the middle" if column == "center" else f"on the {column} side"
    return f"at the {row}" if column == "center" else f"in the {row} {column} corner"


def captions(scene: Scene, rng: random.Random) -> list[str]:
    """Return five captions in random order: the whole scene, all objects, the main object, a relation, a summary.

    They are in lower case without a full stop, all different and all true.
    """
    writers: list[Callable[[Scene, random.Random], str]] = [_whole, _listing, _main_object, _relation, _summary]
    written = [write(scene, rng) for write in writers]
    rng.shuffle(written)
    return written


def _whole(scene: Scene, rng: random.Random) -> str:
    number = NUMBERS[len(scene.objects)]
    colors = joined(sorted(scene.counts("color")))
    return rng.choice(
        [
            f"{number} shapes on a {scene.background} background",
            f"a {scene.background} picture with {number} colored shapes",
            f"a drawing of {number} {colors} shapes on {scene.background}",
        ]
    )


def _listing(scene: Scene, rng: random.Random) -> str:
    parts = [counted(number, name) for name, number in Counter(item.name for item in scene.objects).items()]
    rng.shuffle(parts)
    return rng.choice(["{}", "there are {}", "{} together"]).format(joined(parts))


def _main_object(scene: Scene, rng: random.Random) -> str:
    main = scene.objects[0]
    noun = with_article(f"{main.size} {main.name}")
    position = position_text(main, scene)
    return rng.choice([f"{noun} {position}", f"{noun} {position} near other shapes", f"a view of {noun} {position}"])


def _relation(scene: Scene, rng: random.Random) -> str:
    item, anchor = rng.sample(scene.objects, 2)
    # Boxes do not overlap, so at least one of the four relations holds strictly for any two objects.
    direction = rng.choice([name for name in DIRECTIONS if is_strictly(name, item, anchor)])
    verb = rng.choice(["", " is", " sits"])
    return f"{with_article(item.name)}{verb} {RELATION_WORDS[direction]} {with_article(anchor.name)}"


def _summary(scene: Scene, rng: random.Random) -> str:
    attribute: Literal["shape", "color"] = rng.choice(["shape", "color"])
    counts = scene.counts(attribute).most_common()
    if attribute == "shape":
        return f"a picture of {joined([counted(number, shape) for shape, number in counts])}"
    parts = [f"{NUMBERS[number]} {color} {'shape' if number == 1 else 'shapes'}" for color, number in counts]
    return f"a scene with {joined(parts)}"
