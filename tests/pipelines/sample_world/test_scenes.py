"""Scenes: a pure function of their arguments, disjoint splits, rare values, and space between objects."""

import hashlib
from collections import Counter
from itertools import combinations

import pytest

from pipelines.sample_world.entries import Entry
from pipelines.sample_world.scenes import COLORS, PRESETS, SHAPES, SPLITS, Scene, make_scene

TINY, SMALL = PRESETS["tiny"], PRESETS["small"]


def test_a_scene_depends_only_on_its_arguments() -> None:
    scene = make_scene(5, "val", 3, SMALL)
    make_scene(5, "val", 2, SMALL)
    assert make_scene(5, "val", 3, SMALL) == scene
    others = [make_scene(6, "val", 3, SMALL), make_scene(5, "val", 4, SMALL), make_scene(5, "test", 3, SMALL)]
    assert scene not in others


def test_splits_are_disjoint_by_content_for_any_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a digest with only 64 values: without the rule, the splits would share nearly all of them."""

    def coarse(scene: Scene) -> bytes:
        return hashlib.sha256(scene.objects[0].name.encode()).digest()

    monkeypatch.setattr(Scene, "content_digest", coarse)
    contents = {
        split: {make_scene(seed, split, index, TINY).objects[0].name for seed in (0, 1) for index in range(100)}
        for split in SPLITS
    }
    assert min(len(names) for names in contents.values()) > 5
    for first, second in combinations(SPLITS, 2):
        assert not contents[first] & contents[second]


def test_the_content_digest_ignores_small_shifts_and_depends_on_colors() -> None:
    scene = make_scene(0, "train", 0, SMALL)
    first, *rest = scene.objects
    moved = type(first)(**{**vars(first), "width": first.width - 2, "height": first.height - 2, "x": first.x + 1})
    repainted = type(first)(**{**vars(first), "color": "pink" if first.color != "pink" else "red"})
    world = {**vars(scene), "background": "beige"}
    assert type(scene)(**{**world, "objects": (moved, *rest)}).content_digest() == scene.content_digest()
    assert type(scene)(**{**world, "objects": (repainted, *rest)}).content_digest() != scene.content_digest()


def test_objects_are_inside_the_image_and_apart(entries: list[Entry]) -> None:
    for scene in (entry.scene for entry in entries):
        for item in scene.objects:
            x1, y1, x2, y2 = item.box
            assert 0 < x1 < x2 < scene.width
            assert 0 < y1 < y2 < scene.height
        for a, b in combinations(scene.objects, 2):
            apart = (a.x - b.box[2], b.x - a.box[2], a.y - b.box[3], b.y - a.box[3])
            assert max(apart) >= 2


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_limit_the_number_of_objects_and_the_size(name: str) -> None:
    preset = PRESETS["tiny" if name == "tiny" else "small"]
    scenes = [make_scene(1, "train", index, preset) for index in range(200)]
    assert {len(scene.objects) for scene in scenes} == set(range(preset.objects[0], preset.objects[1] + 1))
    assert {max(scene.width, scene.height) for scene in scenes} == {preset.image_size}
    assert len({(scene.width, scene.height) for scene in scenes}) == 3
    assert all(len(scene.names) >= 3 for scene in scenes)


def test_every_shape_and_color_occurs_and_some_are_rare(entries: list[Entry]) -> None:
    seen = Counter(value for entry in entries for item in entry.scene.objects for value in (item.shape, item.color))
    assert set(seen) == {*SHAPES, *COLORS}
    assert seen["circle"] > 2 * seen["cross"]
    assert seen["red"] > 2 * seen["pink"]


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="pretrain"):
        make_scene(0, "dev", 0, TINY)
