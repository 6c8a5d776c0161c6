"""What the tag encoder is trained on: tags, their image's captions, another image's."""

import dataclasses
from typing import Literal

import pytest

from models.tag_encoder import TagEncoderProcessor
from pipelines.training.config import TrainTagEncoderConfig
from pipelines.training.order import Draw
from pipelines.training.tag_encoder import TagEncoderData, Triplet
from tests.pipelines.training.conftest import World


def triplets(world: World, encoder: str, positive: Literal["centroid", "mean"]) -> list[Triplet]:
    settings = TrainTagEncoderConfig(data=world.tagged, positive=positive)
    data = TagEncoderData(world.tagged, TagEncoderProcessor.from_pretrained(encoder), settings)
    return [data.load(Draw(0, index, 0)) for index in range(data.pools[0])]


@pytest.mark.parametrize("positive", ["centroid", "mean"])
def test_negatives_are_another_images_captions(
    world: World, tag_encoder: str, positive: Literal["centroid", "mean"]
) -> None:
    captions = {row["image_id"]: set(row["captions"]) for row in world.images}

    for one in triplets(world, tag_encoder, positive):
        assert captions[one.image_id].issuperset(one.positives)
        assert captions[one.image_id].isdisjoint(one.negatives)
        assert any(set(one.negatives) <= others for others in captions.values())


@pytest.mark.parametrize(("positive", "each"), [("centroid", 1), ("mean", 2)])
def test_positive_and_negative_have_the_same_form(
    world: World, tag_encoder: str, positive: Literal["centroid", "mean"], each: int
) -> None:
    # A mean of captions against a single one is told apart without reading either: every image then gets one vector.
    found = triplets(world, tag_encoder, positive)

    assert {(len(one.positives), len(one.negatives)) for one in found} == {(each, each)}


def test_negatives_change_from_epoch_to_epoch(world: World, tag_encoder: str) -> None:
    settings = TrainTagEncoderConfig(data=world.tagged)
    data = TagEncoderData(world.tagged, TagEncoderProcessor.from_pretrained(tag_encoder), settings)
    seen = [[data.load(Draw(0, index, epoch)) for index in range(10)] for epoch in (0, 0, 1)]

    assert seen[0] == seen[1] != seen[2]
    assert [dataclasses.replace(one, negatives=[]) for one in seen[0]] == [
        dataclasses.replace(one, negatives=[]) for one in seen[2]
    ]
