"""What is in a scene: a few objects of a shape, a color and a size on a plain background.

A scene is a pure function of (seed, split, index, preset): no drawing, no files, so that any number of scenes can be
had as text and boxes alone. Splits are disjoint by construction: a scene's content digest decides where it may be used.
"""

import hashlib
import random
from collections import Counter
from dataclasses import dataclass
from typing import Literal

SHAPES = {  # name: probability; a fixed long tail, so that some tags are rare
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
LOOK_ALIKES = {  # what a tagger and a hasty annotator take one for
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
SPLITS = ("train", "val", "test", "pretrain")  # `pretrain` is never written as a benchmark: it feeds tiny backbones

PresetName = Literal["tiny", "small"]


@dataclass(frozen=True)
class Preset:
    """How crowded and how large scenes are.

    Attributes:
        image_size: the longer side in pixels.
        objects: fewest and most objects of a scene.
        small: diameter of a small object as a share of the shorter side, from and to.
        large: the same of a large object.
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
    """One object; `x`, `y`, `width`, `height` are its exact extent in pixels, `x + width` the first column outside."""

    shape: str
    color: str
    size: Literal["small", "large"]
    x: int
    y: int
    width: int
    height: int

    @property
    def name(self) -> str:
        """Color and shape, such as "red circle"."""
        return f"{self.color} {self.shape}"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 in pixels."""
        return self.x, self.y, self.x + self.width, self.y + self.height

    @property
    def center(self) -> tuple[float, float]:
        """Center in pixels."""
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
        """The distinct color-shape pairs in it, sorted."""
        return tuple(sorted({item.name for item in self.objects}))

    def counts(self, attribute: Literal["shape", "color", "size"]) -> Counter[str]:
        """How many objects have each value of an attribute."""
        return Counter(getattr(item, attribute) for item in self.objects)

    def content_digest(self) -> bytes:
        """Digest of what one would say of the scene: each object's look and its cell of a 3 × 3 grid.

        Two scenes that differ by a few pixels only, or by their background, have the same digest.
        """
        looks = sorted(
            f"{item.size} {item.name} {int(3 * item.center[0] / self.width)}{int(3 * item.center[1] / self.height)}"
            for item in self.objects
        )
        return hashlib.sha256("|".join(looks).encode()).digest()


def make_scene(seed: int, split: str, index: int, preset: Preset) -> Scene:
    """Return the scene number `index` of a split.

    Scenes of different splits differ in content for every seed and every number of scenes: a candidate whose content
    digest falls to another split is thrown away and the next one drawn.

    Args:
        seed: of the whole world.
        split: one of `SPLITS`.
        index: 0, 1, …, without an upper bound.
        preset: how large and how crowded.

    Raises:
        ValueError: an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"{split!r} is not a split of the sample world; choose one of {', '.join(SPLITS)}.")
    rng = random.Random(f"{seed}/{split}/{index}")
    while True:
        scene = _candidate(rng, preset)
        if scene is not None and scene.content_digest()[0] % len(SPLITS) == SPLITS.index(split):
            return scene


def _candidate(rng: random.Random, preset: Preset) -> Scene | None:
    """One draw; None where the objects did not fit or name fewer than three different things."""
    longer, shorter = preset.image_size, preset.image_size * 3 // 4
    width, height = rng.choice([(longer, longer), (longer, longer), (longer, shorter), (shorter, longer)])
    objects: list[SceneObject] = []
    for _ in range(rng.randint(*preset.objects)):
        shape, color = _look(rng, objects)
        placed = _place(rng, preset, shape, color, width, height, objects)
        if placed is None:
            return None
        objects.append(placed)
    if len({item.name for item in objects}) < 3:
        return None
    objects.sort(key=lambda item: -item.width * item.height)
    return Scene(width, height, rng.choice(BACKGROUNDS), tuple(objects))


def _look(rng: random.Random, others: list[SceneObject]) -> tuple[str, str]:
    """Shape and color; half of the later objects share one of them with an earlier object, or look like it."""
    shape = rng.choices(list(SHAPES), list(SHAPES.values()))[0]
    color = rng.choices(list(COLORS), list(COLORS.values()))[0]
    if others and rng.random() < 0.5:
        like = rng.choice(others)
        match rng.randrange(4):
            case 0:
                shape = like.shape
            case 1:
                color = like.color
            case 2:
                shape, color = LOOK_ALIKES.get(like.shape, shape), like.color
            case _:
                shape, color = like.shape, LOOK_ALIKES.get(like.color, color)
    return shape, color


def _place(
    rng: random.Random, preset: Preset, shape: str, color: str, width: int, height: int, others: list[SceneObject]
) -> SceneObject | None:
    """Return the object at a free place, or None after 25 tries."""
    for _ in range(25):
        size: Literal["small", "large"] = "small" if rng.random() < 0.5 else "large"
        w, h = _extent(rng, preset, shape, size, min(width, height))
        x, y = rng.randint(1, width - w - 1), rng.randint(1, height - h - 1)
        item = SceneObject(shape, color, size, x, y, w, h)
        if not any(_touch(item, other, max(2, preset.image_size // 32)) for other in others):
            return item
    return None


def _extent(rng: random.Random, preset: Preset, shape: str, size: str, side: int) -> tuple[int, int]:
    """Width and height in pixels; odd, so that a tip has a pixel of its own."""
    low, high = preset.small if size == "small" else preset.large
    longer = round(rng.uniform(low, high) * side) | 1
    if shape not in ("ellipse", "rectangle"):
        return longer, longer
    shorter = round(longer * rng.uniform(0.5, 0.7)) | 1
    return (longer, shorter) if rng.random() < 0.5 else (shorter, longer)


def _touch(a: SceneObject, b: SceneObject, gap: int) -> bool:
    """Whether fewer than `gap` pixels lie between two boxes."""
    apart_x = a.x >= b.x + b.width + gap or b.x >= a.x + a.width + gap
    apart_y = a.y >= b.y + b.height + gap or b.y >= a.y + a.height + gap
    return not (apart_x or apart_y)
