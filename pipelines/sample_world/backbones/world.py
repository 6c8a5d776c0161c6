"""Scenes to pre-train on: the sample world's `pretrain` split, which no benchmark of it ever holds."""

import random
from collections.abc import Iterator
from functools import lru_cache

from pipelines.sample_world.entries import Entry, make_entry
from pipelines.sample_world.scenes import PRESETS, PresetName, Scene, SceneObject
from pipelines.sources.boxes import Box

SPLIT = "pretrain"
# Held-out scenes are numbered from here, far beyond what any training reaches; same split, other scenes.
HELD_OUT = 50_000_000
# The held-out scenes are of this seed whatever the training's own, so that losses and cards of different seeds are
# measured on the same scenes.
HELD_OUT_SEED = 0


def preset_of(seed: int, index: int, small_fraction: float) -> PresetName:
    """Which of the sample world's sizes scene `index` has."""
    return "small" if random.Random(f"size/{seed}/{index}").random() < small_fraction else "tiny"


def entry(seed: int, index: int, small_fraction: float) -> Entry:
    """Return the pre-training scene number `index`, with its texts and its picture's seed."""
    return make_entry(seed, SPLIT, index, PRESETS[preset_of(seed, index, small_fraction)])


@lru_cache(maxsize=16_384)
def cached_entry(seed: int, index: int, small_fraction: float) -> Entry:
    """As `entry`; texts are asked of the same scene many times."""
    return entry(seed, index, small_fraction)


def place_of(seed: int, index: int, held_out: bool) -> tuple[int, int]:
    """Return the seed and the number of scene `index` of a seed's training part, or of the held-out part of all."""
    return (HELD_OUT_SEED, HELD_OUT + index) if held_out else (seed, index)


def held_out_entries(seed: int, count: int, preset: PresetName = "tiny") -> Iterator[Entry]:
    """Scenes that no pre-training saw."""
    for index in range(HELD_OUT, HELD_OUT + count):
        yield make_entry(seed, SPLIT, index, PRESETS[preset])


def normalized_box(item: SceneObject, scene: Scene) -> Box:
    """x1, y1, x2, y2 in [0, 1]."""
    x1, y1, x2, y2 = item.box
    return x1 / scene.width, y1 / scene.height, x2 / scene.width, y2 / scene.height
