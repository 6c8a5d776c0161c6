"""Scenes for pre-training: the split `pretrain` of the sample world, which is never written to benchmark files."""

import random
from collections.abc import Iterator
from functools import lru_cache

from pipelines.sample_world.entries import Entry, make_entry
from pipelines.sample_world.scenes import PRESETS, PresetName, Scene, SceneObject
from pipelines.sources.boxes import Box

SPLIT = "pretrain"
# The number of the first held-out scene. It is far beyond the scenes of any training, so the two never overlap.
HELD_OUT = 50_000_000
# Held-out scenes have this seed for every seed of training, so that the losses and cards of different seeds are
# measured on the same scenes.
HELD_OUT_SEED = 0


def preset_of(seed: int, index: int, small_fraction: float) -> PresetName:
    """Return the preset of scene `index`, drawn with probability `small_fraction` for `small`."""
    return "small" if random.Random(f"size/{seed}/{index}").random() < small_fraction else "tiny"


def entry(seed: int, index: int, small_fraction: float) -> Entry:
    """Return the pre-training scene number `index`, with its texts and tags."""
    return make_entry(seed, SPLIT, index, PRESETS[preset_of(seed, index, small_fraction)])


@lru_cache(maxsize=16_384)
def cached_entry(seed: int, index: int, small_fraction: float) -> Entry:
    """Return `entry` from a cache: the text corpus uses the same scene many times."""
    return entry(seed, index, small_fraction)


def scene_key(seed: int, index: int, held_out: bool) -> tuple[int, int]:
    """Return (seed, number) of a scene: the `index`-th training scene of a seed, or the `index`-th held-out scene."""
    return (HELD_OUT_SEED, HELD_OUT + index) if held_out else (seed, index)


def held_out_entries(seed: int, count: int, preset: PresetName = "tiny") -> Iterator[Entry]:
    """Yield scenes that are not used for pre-training."""
    for index in range(HELD_OUT, HELD_OUT + count):
        yield make_entry(seed, SPLIT, index, PRESETS[preset])


def normalized_box(item: SceneObject, scene: Scene) -> Box:
    """Return the object's box x1, y1, x2, y2, each in [0, 1]."""
    x1, y1, x2, y2 = item.box
    return x1 / scene.width, y1 / scene.height, x2 / scene.width, y2 / scene.height
