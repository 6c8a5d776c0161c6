"""Scenes: a few objects, each with a shape, a color and a size, on a plain background.

A scene is a pure function of (seed, split, index, preset) without drawing or files, so any number of scenes is
available as text and boxes. Splits are disjoint by construction: the digest of a scene's content decides its split.
"""

import hashlib
import random
from collections import Counter
from dataclasses import dataclass
from typing import Literal

SHAPES = {  # name: probability; the long tail makes some tags rare
    "circle": 0.24,
    "square": 0.20,
    "triangle": 0.16,
    "star": 0.12,
    "rectangle": 0.10,
    "ellipse": 0.08,
    "diamond": 0.06,
    "cross": 0.04,
}
COLORS = {
    "red": 0.20,
    "blue": 0.18,
    "green": 0.16,
    "yellow": 0.14,
    "purple": 0.11,
    "orange": 0.09,
    "black": 0.07,
    "pink": 0.05,
}
LOOK_ALIKES = {  # value: the value that the tagger and the annotators confuse it with
    "circle": "ellipse",
    "ellipse": "circle",
    "square": "rectangle",
    "rectangle": "square",
    "diamond": "square",
    "star": "cross",
    "cross": "star",
    "red": "orange",
    "orange": "red",
    "purple": "pink",
    "pink": "purple",
}
BACKGROUNDS = ("white", "gray", "beige", "light blue", "light green")
SPLITS = ("train", "val", "test", "pretrain")  # `pretrain` is not written to files: tiny backbones learn from it

PresetName = Literal["tiny", "small"]


@dataclass(frozen=True)
class Preset:
    """Sizes of scenes and of their objects.

    Attributes:
        image_size: longer side of an image in pixels.
        objects: smallest and largest number of objects.
        small: smallest and largest diameter of a small object, as a fraction of the shorter side.
        large: the same for a large object.
    """

    image_size: int
    objects: tuple[int, int]
    small: tuple[float, float]
    large: tuple[float, float]


PRESETS: dict[PresetName, Preset] = {
    "tiny": Preset(image_size=64, objects=(3, 4), small=(0.20, 0.25), large=(0.34, 0.42)),
    "small": Preset(image_size=96, objects=(3, 6), small=(0.16, 0.21), large=(0.28, 0.36)),
}


@dataclass(frozen=True)
class SceneObject:
    """One object. `x`, `y`, `width`, `height` are its exact box in pixels; column `x + width` is outside."""

    shape: str
    color: str
    size: Literal["small", "large"]
    x: int
    y: int
    width: int
    height: int

    @property
    def name(self) -> str:
        """Color and shape, for example "red circle"."""
        return f"{self.color} {self.shape}"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 in pixels."""
        return self.x, self.y, self.x + self.width, self.y + self.height

    @property
    def center(self) -> tuple[float, float]:
        """Center (x, y) of the box in pixels."""
        return self.x + self.width / 2, self.y + self.height / 2


@dataclass(frozen=True)
class Scene:
    """A background and its objects, largest first; their boxes do not overlap."""

    width: int
    height: int
    background: str
    objects: tuple[SceneObject, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The distinct color-shape pairs of the scene, sorted."""
        return tuple(sorted({item.name for item in self.objects}))

    def counts(self, attribute: Literal["shape", "color", "size"]) -> Counter[str]:
        """Return the number of objects with each value of an attribute."""
        return Counter(getattr(item, attribute) for item in self.objects)

    def content_digest(self) -> bytes:
        """Return a digest of the visible content: each object's size, color, shape, and its cell of a 3 × 3 grid.

        Scenes that differ only by a few pixels or by their background have the same digest.
        """
        looks = sorted(
            f"{item.size} {item.name} {int(3 * item.center[0] / self.width)}{int(3 * item.center[1] / self.height)}"
            for item in self.objects
        )
        return hashlib.sha256("|".join(looks).encode()).digest()


def make_scene(seed: int, split: str, index: int, preset: Preset) -> Scene:
    """Return scene number `index` of a split.

    Scenes of different splits differ in content for every seed and every number of scenes: a candidate whose content
    digest belongs to another split is discarded, and the next one is drawn.

    Args:
        seed: seed of the world.
        split: one of `SPLITS`.
        index: 0, 1, …, without an upper bound.
        preset: sizes of the scene and its objects.

    Raises:
        ValueError: the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"{split!r} is not a split of the sample world; use one of {', '.join(SPLITS)}.")
    rng = random.Random(f"{seed}/{split}/{index}")
    while True:
        scene = _candidate(rng, preset)
        if scene is not None and scene.content_digest()[0] % len(SPLITS) == SPLITS.index(split):
            return scene


def _candidate(rng: random.Random, preset: Preset) -> Scene | None:
    """Draw a scene; return None if the objects do not fit or have fewer than three different names."""
    longer, shorter = preset.image_size, preset.image_size * 3 // 4
    width, height = rng.choice([(longer, longer), (longer, longer), (longer, shorter), (shorter, longer)])
    objects: list[SceneObject] = []
    for _ in range(rng.randint(*preset.objects)):
        shape, color = _appearance(rng, objects)
        placed = _place(rng, preset, shape, color, width, height, objects)
        if placed is None:
            return None
        objects.append(placed)
    if len({item.name for item in objects}) < 3:
        return None
    objects.sort(key=lambda item: -item.width * item.height)
    return Scene(width, height, rng.choice(BACKGROUNDS), tuple(objects))


def _appearance(rng: random.Random, placed: list[SceneObject]) -> tuple[str, str]:
    """Draw shape and color. Half of the objects after the first resemble an earlier one.

    They share its shape or its color, and may have a look-alike of the other.
    """
    shape = rng.choices(list(SHAPES), list(SHAPES.values()))[0]
    color = rng.choices(list(COLORS), list(COLORS.values()))[0]
    if placed and rng.random() < 0.5:
        earlier = rng.choice(placed)
        match rng.randrange(4):
            case 0:
                shape = earlier.shape
            case 1:
                color = earlier.color
            case 2:
                shape, color = LOOK_ALIKES.get(earlier.shape, shape), earlier.color
            case _:
                shape, color = earlier.shape, LOOK_ALIKES.get(earlier.color, color)
    return shape, color


def _place(
    rng: random.Random, preset: Preset, shape: str, color: str, width: int, height: int, others: list[SceneObject]
) -> SceneObject | None:
    """Return the object at a free position, or None after 25 tries."""
    for _ in range(25):
        size: Literal["small", "large"] = "small" if rng.random() < 0.5 else "large"
        w, h = _extent(rng, preset, shape, size, min(width, height))
        x, y = rng.randint(1, width - w - 1), rng.randint(1, height - h - 1)
        item = SceneObject(shape, color, size, x, y, w, h)
        if not any(_touch(item, other, max(2, preset.image_size // 32)) for other in others):
            return item
    return None


def _extent(rng: random.Random, preset: Preset, shape: str, size: str, side: int) -> tuple[int, int]:
    """Draw width and height in pixels. They are odd, so that the tip of a triangle or diamond is exactly one pixel."""
    low, high = preset.small if size == "small" else preset.large
    longer = round(rng.uniform(low, high) * side) | 1
    if shape not in ("ellipse", "rectangle"):
        return longer, longer
    shorter = round(longer * rng.uniform(0.5, 0.7)) | 1
    return (longer, shorter) if rng.random() < 0.5 else (shorter, longer)


def _touch(a: SceneObject, b: SceneObject, gap: int) -> bool:
    """Return whether the distance between two boxes is less than `gap` pixels."""
    apart_x = a.x >= b.x + b.width + gap or b.x >= a.x + a.width + gap
    apart_y = a.y >= b.y + b.height + gap or b.y >= a.y + a.height + gap
    return not (apart_x or apart_y)
