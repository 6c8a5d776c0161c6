"""Generation settings survive every way in which a training makes a LION of another: prompt, stage, merge, registry."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from models.lion import LionForConditionalGeneration
from models.lion.generation import decoding_settings
from pipelines.core.resources import LaunchConfig
from pipelines.inference.decoding import DecodingConfig, resolve_decoding
from pipelines.registry import resolve
from pipelines.training.config import LoopConfig, OptimizerConfig, PromptSettings, TrainStageConfig
from pipelines.training.runs import train_stage
from pipelines.training.stage import merge_parents
from tests.pipelines.training.conftest import World

OWN = {"num_beams": 1, "repetition_penalty": 1.0, "max_new_tokens": 40, "no_repeat_ngram_size": 2}


def with_settings(source: str, target: Path, **changes: Any) -> str:
    """A copy of a model's folder that generates with other settings."""
    shutil.copytree(source, target)
    file = target / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | OWN | changes))
    return str(target)


def settings_of(folder: str) -> dict[str, Any]:
    """What a loaded model generates with, where it is not LION's."""
    settings = decoding_settings(LionForConditionalGeneration.from_pretrained(folder).generation_config.to_dict())
    return {name: settings[name] for name in OWN}


def test_a_stage_three_model_decodes_with_its_parents_settings(
    world: World, lion: str, tag_encoder: str, tmp_path: Path
) -> None:
    base = TrainStageConfig(
        world.instructions, world.tagged, [with_settings(lion, tmp_path / "lion")], optimizer=OptimizerConfig(1e-3),
        loop=LoopConfig(steps=1, batch_size=4), launch=LaunchConfig("local", cpus_per_worker=1),
        out=str(tmp_path / "runs"),
    )  # fmt: skip
    prompt = PromptSettings("dynamic", tokens=2)
    dynamic = dataclasses.replace(base, prompt=prompt, tag_encoder=tag_encoder)  # a prompt that the start does not have
    parents = [train_stage(dataclasses.replace(dynamic, stage=stage)).path for stage in (1, 2)]
    for parent in parents:
        assert settings_of(f"{parent}/model") == OWN
    merged = train_stage(dataclasses.replace(dynamic, stage=3, parents=parents))
    assert settings_of(f"{merged.path}/model") == OWN
    registered = resolve("models:/lion-stage3@candidate", out=str(tmp_path / "runs"))
    assert settings_of(registered) == OWN
    effective = resolve_decoding(registered, DecodingConfig(), None).settings
    assert (effective["num_beams"], effective["repetition_penalty"]) == (1, 1.0)


def test_of_parents_that_differ_stage_1_decides_and_the_log_says_so(
    lion: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = with_settings(lion, tmp_path / "first")
    second = with_settings(lion, tmp_path / "second", repetition_penalty=1.5)
    with caplog.at_level(logging.WARNING, logger="lion.training"):
        merge_parents(first, second, str(tmp_path / "merged"))
    assert settings_of(str(tmp_path / "merged")) == OWN
    assert [record.getMessage() for record in caplog.records if "repetition_penalty 1.0" in record.getMessage()]
    assert "num_beams" not in caplog.text
    caplog.clear()
    merge_parents(first, first, str(tmp_path / "alike"))
    assert not caplog.records
