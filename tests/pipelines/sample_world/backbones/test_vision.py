"""The labels of the ViT's patches, and the loss and accuracy of its readouts."""

import pytest
import torch

from pipelines.sample_world.backbones.config import VisionSettings
from pipelines.sample_world.backbones.vision import (
    HEADS,
    SceneImages,
    VisionTask,
    patch_targets,
    probe_loss,
    probe_sums,
)
from pipelines.sample_world.scenes import BACKGROUNDS, COLORS, SHAPES, Scene, SceneObject
from pipelines.training.order import Draw

COLUMN = {name: number for number, name in enumerate(HEADS)}
# 60 × 60 pixels, patches of 10: a red circle over the patches of rows 0-1 and columns 0-1, a small star in one patch.
SCENE = Scene(
    60,
    60,
    "beige",
    (SceneObject("circle", "red", "large", 0, 0, 20, 20), SceneObject("star", "blue", "small", 41, 32, 8, 8)),
)


def test_each_patch_is_labeled_with_the_object_that_covers_most_of_it() -> None:
    labels, boxes = patch_targets(SCENE, 6)
    circle, star, nothing = 0, 3 * 6 + 4, 5

    assert labels[circle, COLUMN["color"]] == list(COLORS).index("red")
    assert labels[circle, COLUMN["shape"]] == list(SHAPES).index("circle")
    assert labels[circle, COLUMN["size"]] == 1
    assert boxes[circle] == pytest.approx([0, 0, 1 / 3, 1 / 3])
    assert labels[star, COLUMN["name"]] == list(COLORS).index("blue") * len(SHAPES) + list(SHAPES).index("star")
    assert boxes[star] == pytest.approx([41 / 60, 32 / 60, 49 / 60, 40 / 60])
    assert labels[nothing, COLUMN["color"]] == len(COLORS)
    assert (labels[:, COLUMN["background"]] == BACKGROUNDS.index("beige")).all()
    assert sorted(labels[:, COLUMN["center"]].nonzero()[0]) == [1 * 6 + 1, star]


def test_correct_readouts_have_accuracy_one_and_a_lower_loss() -> None:
    labels, boxes = (torch.from_numpy(array)[None] for array in patch_targets(SCENE, 6))
    right = {n: 20.0 * torch.nn.functional.one_hot(labels[..., i], HEADS[n]) for n, i in COLUMN.items()}
    right["box"] = boxes
    wrong = {name: -value for name, value in right.items()}

    sums = probe_sums(right, labels, boxes)

    assert float(sums["patches"]) == 5
    assert all(float(value) == 5 for value in sums.values())
    assert float(probe_loss(right, labels, boxes)) < 1e-3 < float(probe_loss(wrong, labels, boxes))
    assert float(probe_sums(wrong, labels, boxes)["box_iou_0.5"]) == 0


def test_a_batch_has_pixels_of_the_vit_s_size_and_training_reaches_the_vit() -> None:
    settings = VisionSettings(scenes=4, validation_scenes=2)
    data = SceneImages(settings, seed=0)
    task = VisionTask(settings, seed=0)
    model = task.build()

    batch = data.collate([data.load(Draw(0, index, 0)) for index in range(4)])
    output = task.forward(model, batch)
    output.loss.backward()

    assert batch.tensors["pixel_values"].shape == (4, 3, 60, 60)
    assert batch.tensors["patches"].shape == (4, 36, len(HEADS))
    assert all(p.grad is not None for name, p in model.named_parameters() if "post_layernorm" not in name)
