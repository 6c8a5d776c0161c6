"""Scenes for pre-training are not in the benchmark splits, and held-out scenes are not trained on."""

from typing import Any

import pytest

from pipelines.sample_world.backbones import language, tag_text
from pipelines.sample_world.backbones.config import LanguageSettings, TaggerSettings, TagTextSettings, VisionSettings
from pipelines.sample_world.backbones.tagger import TaggedImages
from pipelines.sample_world.backbones.vision import SceneImages
from pipelines.sample_world.backbones.world import HELD_OUT, entry, held_out_entries, normalized_box, preset_of
from pipelines.sample_world.scenes import PRESETS, PresetName, make_scene
from pipelines.training.order import Draw


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_no_scene_is_in_training_validation_or_test_of_any_seed(preset: PresetName) -> None:
    pretrain = {held.scene.content_digest() for held in held_out_entries(0, 60, preset)}
    pretrain |= {entry(0, index, 1.0 if preset == "small" else 0.0).scene.content_digest() for index in range(60)}
    assert len(pretrain) == 120  # so no held-out scene is a training scene, either

    for split in ("train", "val", "test"):
        benchmark = {make_scene(seed, split, i, PRESETS[preset]).content_digest() for seed in (0, 1) for i in range(60)}
        assert not pretrain & benchmark


def test_presets_are_mixed_by_the_fraction() -> None:
    sizes = [preset_of(3, index, 0.25) for index in range(2000)]

    assert 0.2 < sizes.count("small") / len(sizes) < 0.3
    assert entry(3, 5, 0.0).scene.width <= PRESETS["tiny"].image_size


def test_the_numbers_of_held_out_scenes_are_beyond_those_of_training() -> None:
    first = next(iter(held_out_entries(0, 1)))

    assert first.image_id % 100_000_000 == HELD_OUT


@pytest.mark.parametrize("part", ["vision", "language", "tagger", "tag_encoder"])
def test_pre_trainings_of_other_seeds_are_measured_on_the_same_scenes(part: str) -> None:
    data = [_data(part, seed) for seed in (0, 1)]
    held_out, training = ([str(source.load(Draw(pool, 3, 0))) for source in data] for pool in (1, 0))

    assert held_out[0] == held_out[1]
    assert training[0] != training[1]


def _data(part: str, seed: int) -> Any:
    """Return the data of a part. T5 and BERT have the vocabulary of seed 0, so that texts are comparable."""
    if part == "vision":
        return SceneImages(VisionSettings(), seed)
    if part == "tagger":
        return TaggedImages(TaggerSettings(), seed)
    if part == "language":
        settings = LanguageSettings(bundle=4)
        return language.SceneTexts(settings, seed, language.tokenizer(settings, 0))
    return tag_text.CaptionsAndTags(TagTextSettings(), seed, tag_text.tokenizer(TagTextSettings(), 0))


def test_boxes_are_normalized_by_each_side() -> None:
    scene = entry(0, 0, 0.0).scene
    item = scene.objects[0]

    x1, y1, x2, y2 = normalized_box(item, scene)

    assert (x1 * scene.width, y1 * scene.height) == pytest.approx((item.x, item.y))
    assert (x2 * scene.width, y2 * scene.height) == pytest.approx((item.x + item.width, item.y + item.height))
