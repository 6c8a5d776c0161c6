"""Configurations of the training verbs: the files in jobs/ are valid, and unknown keys are refused."""

from pathlib import Path

import pytest

from jobs.cli import parse
from models.lion import TRAINABLE
from pipelines.training.config import STAGE_MIX, TrainStageConfig, TrainTagEncoderConfig

REQUIRED = ["--data", "d", "--tagged", "t", "--parents", "p"]


def test_the_tag_encoders_file_has_the_published_values(root: Path) -> None:
    config = parse(
        "train_tag_encoder", TrainTagEncoderConfig,
        ["--config", str(root / "jobs/train_tag_encoder.yaml"), "--data", "d", "--margin", "0.5"],
    )  # fmt: skip
    assert (config.margin, config.p, config.loop.epochs, config.loop.batch_size) == (0.5, 2.0, 5, 16)
    assert config.optimizer.learning_rate == 5e-5


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_recipe_lists_the_defaults_of_its_stage(stage: int, root: Path) -> None:
    recipe = str(root / f"jobs/recipes/stage{stage}.yaml")
    config = parse("train_stage", TrainStageConfig, ["--config", recipe, *REQUIRED])
    plain = parse("train_stage", TrainStageConfig, ["--stage", str(stage), "--prompt.kind", "dynamic", *REQUIRED])
    assert set(config.groups) == set(plain.trained_groups) <= set(TRAINABLE)
    assert config.ratios == STAGE_MIX[stage]


@pytest.mark.parametrize("gpus", [1, 4, 8, 64])
def test_the_xl_recipes_have_the_published_values(gpus: int, root: Path) -> None:
    recipe = str(root / f"jobs/recipes/flan_t5_xl_stage3_{gpus}gpu.yaml")
    config = parse("train_stage", TrainStageConfig, ["--config", recipe, *REQUIRED])
    assert (config.loop.steps, config.loop.batch_size, config.loop.precision) == (60_000, 64, "bf16")
    assert (config.optimizer.learning_rate, config.optimizer.warmup, config.optimizer.minimum) == (1e-5, 1000, 0.0)
    assert config.launch.workers == gpus
    assert config.loop.micro_batch_size is not None
    assert config.loop.micro_batch_size * gpus <= 64


def test_parents_are_one_or_two() -> None:
    assert parse("train_stage", TrainStageConfig, REQUIRED).parent_list == ["p"]
    two = ["--data", "d", "--tagged", "t", "--parents", "[a, b]"]
    assert parse("train_stage", TrainStageConfig, two).parent_list == ["a", "b"]


def test_an_unknown_key_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse("train_stage", TrainStageConfig, [*REQUIRED, "--loop.batchsize", "4"])
    assert left.value.code == 2
    assert "Did you mean loop.batch_size" in capsys.readouterr().err
