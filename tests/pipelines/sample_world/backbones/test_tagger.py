"""The tagger: its labels, its training, its measures and its thresholds."""

from pathlib import Path

import pytest
import torch

from pipelines.sample_world.backbones.config import TaggerSettings
from pipelines.sample_world.backbones.quality import TaggerOutput, best_thresholds, draw_reliability, measure_tagger
from pipelines.sample_world.backbones.tagger import TaggerTask, present_tags
from pipelines.sample_world.backbones.world import entry
from pipelines.sample_world.tagging import VOCABULARY
from pipelines.training.order import Draw


def test_true_tags_are_the_shapes_colors_and_pairs_of_the_scene() -> None:
    scene = entry(0, 0, 0.0).scene

    labels = present_tags(scene)

    tags = {VOCABULARY[number] for number in labels.nonzero().flatten().tolist()}
    assert tags == {*scene.names, *scene.counts("shape"), *scene.counts("color")}


def test_training_reaches_every_part_of_ram() -> None:
    task = TaggerTask(TaggerSettings(scenes=3, validation_scenes=1), seed=0)
    data, model = task.data(), task.build()

    output = task.forward(model, data.collate([data.load(Draw(0, index, 0)) for index in range(3)]))
    output.loss.backward()

    assert all(parameter.grad is not None for parameter in model.parameters())
    assert float(output.sums["present"]) > 0


def test_measures_of_a_perfect_and_of_a_wrong_tagger() -> None:
    present = (torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) < 0.4).float()

    right, wrong = (measure_tagger(TaggerOutput(confidences, present)) for confidences in (present, 1 - present))

    assert right["mean_average_precision"] == right["precision"] == right["recall"] == pytest.approx(1)
    assert right["calibration_error"] == pytest.approx(0)
    assert wrong["recall"] == 0
    assert wrong["calibration_error"] == pytest.approx(1)


def test_thresholds_separate_present_from_absent_tags() -> None:
    confidences = torch.tensor([[0.9, 0.1], [0.8, 0.3], [0.3, 0.2], [0.1, 0.4]])
    present = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])

    first, never = best_thresholds(TaggerOutput(confidences, present))

    assert 0.3 <= first < 0.8
    assert never == 0.5


def test_the_reliability_curve_is_a_png(tmp_path: Path) -> None:
    target = tmp_path / "reliability.png"

    draw_reliability(TaggerOutput(torch.rand(20, 3), (torch.rand(20, 3) < 0.5).float()), str(target))

    assert target.read_bytes().startswith(b"\x89PNG")
