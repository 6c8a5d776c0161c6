"""Scenes of pre-training are no benchmark's, and those that are measured on are not trained on."""

import pytest

from pipelines.pretraining.world import HELD_OUT, entry, held_out_entries, normalised_box, preset_of
from pipelines.sample_world.scenes import PRESETS, PresetName, make_scene


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_no_scene_is_in_training_validation_or_test_of_any_seed(preset: PresetName) -> None:
    ours = {held.scene.content_digest() for held in held_out_entries(0, 60, preset)}
    ours |= {entry(0, index, 1.0 if preset == "small" else 0.0).scene.content_digest() for index in range(60)}
    assert len(ours) == 120  # also: no held-out scene is one that was trained on

    for split in ("train", "val", "test"):
        theirs = {make_scene(seed, split, i, PRESETS[preset]).content_digest() for seed in (0, 1) for i in range(60)}
        assert not ours & theirs


def test_sizes_are_mixed_as_asked() -> None:
    sizes = [preset_of(3, index, 0.25) for index in range(2000)]

    assert 0.2 < sizes.count("small") / len(sizes) < 0.3
    assert entry(3, 5, 0.0).scene.width <= PRESETS["tiny"].image_size


def test_held_out_scenes_are_numbered_where_no_training_reaches() -> None:
    first = next(iter(held_out_entries(0, 1)))

    assert first.image_id % 100_000_000 == HELD_OUT


def test_boxes_are_normalised_by_each_side() -> None:
    scene = entry(0, 0, 0.0).scene
    item = scene.objects[0]

    x1, y1, x2, y2 = normalised_box(item, scene)

    assert (x1 * scene.width, y1 * scene.height) == pytest.approx((item.x, item.y))
    assert (x2 * scene.width, y2 * scene.height) == pytest.approx((item.x + item.width, item.y + item.height))
