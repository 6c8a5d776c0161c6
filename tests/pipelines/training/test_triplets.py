"""The triplets of the tag encoder: tags, captions of the same image, captions of another image."""

import dataclasses
from typing import Literal

import pytest

from models.tag_encoder import TagEncoderProcessor
from pipelines.training.config import TrainTagEncoderConfig
from pipelines.training.order import Draw
from pipelines.training.tag_encoder_data import TagEncoderData, Triplet
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

    for triplet in triplets(world, tag_encoder, positive):
        assert captions[triplet.image_id].issuperset(triplet.positives)
        assert captions[triplet.image_id].isdisjoint(triplet.negatives)
        assert any(set(triplet.negatives) <= others for others in captions.values())


@pytest.mark.parametrize(("positive", "each"), [("centroid", 1), ("mean", 2)])
def test_positive_and_negative_have_the_same_form(
    world: World, tag_encoder: str, positive: Literal["centroid", "mean"], each: int
) -> None:
    # The encoder could tell a mean of captions from a single one without reading, and collapse to one vector.
    samples = triplets(world, tag_encoder, positive)

    assert {(len(triplet.positives), len(triplet.negatives)) for triplet in samples} == {(each, each)}


def test_negatives_change_from_epoch_to_epoch(world: World, tag_encoder: str) -> None:
    settings = TrainTagEncoderConfig(data=world.tagged)
    data = TagEncoderData(world.tagged, TagEncoderProcessor.from_pretrained(tag_encoder), settings)
    seen = [[data.load(Draw(0, index, epoch)) for index in range(10)] for epoch in (0, 0, 1)]

    assert seen[0] == seen[1] != seen[2]
    assert [dataclasses.replace(triplet, negatives=[]) for triplet in seen[0]] == [
        dataclasses.replace(triplet, negatives=[]) for triplet in seen[2]
    ]
