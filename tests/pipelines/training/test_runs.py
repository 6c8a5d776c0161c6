"""Whole training steps without Ray: result folder, registry, lineage, crash and second run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from models.lion import LionForConditionalGeneration, LionProcessor
from models.tag_encoder import TagEncoder
from pipelines.core.errors import UserError
from pipelines.core.resources import LaunchConfig
from pipelines.core.steps import read_manifest
from pipelines.registry import Registry, RegistryConfig, resolve
from pipelines.training.config import (
    LoopConfig,
    OptimizerConfig,
    PromptSettings,
    TrainStageConfig,
    TrainTagEncoderConfig,
)
from pipelines.training.runs import train_stage, train_tag_encoder
from tests.pipelines.training.conftest import World

LOCAL = LaunchConfig("local", cpus_per_worker=1)
LOOP = LoopConfig(steps=3, batch_size=6, log_every=1)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("runs"))


def encoder_config(world: World, tag_encoder: str, out: str, **changes: Any) -> TrainTagEncoderConfig:
    return dataclasses.replace(
        TrainTagEncoderConfig(world.tagged, tag_encoder, loop=LOOP, launch=LOCAL, out=out), **changes
    )


def stage_config(world: World, parents: Any, out: str, **changes: Any) -> TrainStageConfig:
    config = TrainStageConfig(
        world.instructions, world.tagged, parents, loop=LOOP, optimizer=OptimizerConfig(1e-3), launch=LOCAL, out=out
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def encoder_run(world: World, tag_encoder: str, out: str) -> Path:
    """The folder of a trained tag encoder, registered in `out`."""
    return Path(train_tag_encoder(encoder_config(world, tag_encoder, out)).path)


def test_a_result_has_its_model_its_metrics_and_its_curves(encoder_run: Path) -> None:
    manifest = read_manifest(str(encoder_run))
    assert {"validation_loss", "validation_cosine_positive"} <= set(manifest["metrics"])
    assert {"model/config.json", "model/model.safetensors", "metrics.jsonl", "curves.png"} <= {
        file["path"] for file in manifest["files"]
    }
    records = [json.loads(line) for line in (encoder_run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "train"] == [1, 2, 3]
    assert {"learning_rate/tag_encoder", "gradient_norm", "samples_per_second", "data_wait"} <= set(records[1])
    assert (encoder_run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not (encoder_run / "checkpoints").exists()


def test_what_the_registry_gives_back_is_what_was_saved(encoder_run: Path, out: str) -> None:
    registered = TagEncoder.from_pretrained(resolve("models:/lion-tag-encoder@candidate", out=out)).state_dict()
    for name, value in TagEncoder.from_pretrained(encoder_run / "model").state_dict().items():
        assert torch.equal(registered[name], value)


def test_mlflow_has_one_run_with_curves_settings_and_lineage(encoder_run: Path, out: str) -> None:
    registry = Registry(RegistryConfig(), out)
    manifest = read_manifest(str(encoder_run))
    run = registry.client.get_run(manifest["model"]["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["loop.batch_size"] == "6"
    assert run.data.tags["digest.data"] == manifest["inputs"]["data"]["digest"]
    history = registry.client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in history] == [1, 2, 3]
    assert registry.lookup("models:/lion-tag-encoder@candidate").run_id == run.info.run_id


def test_a_second_run_does_nothing(encoder_run: Path, world: World, tag_encoder: str, out: str) -> None:
    again = train_tag_encoder(encoder_config(world, tag_encoder, out))
    assert again.skipped
    assert again.path == str(encoder_run)


def test_a_crash_before_registering_loses_nothing(
    world: World, tag_encoder: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = encoder_config(world, tag_encoder, out, margin=0.7)

    def crash(*_: Any, **__: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "register", crash)
        with pytest.raises(KeyboardInterrupt):
            train_tag_encoder(config)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("pipelines.training.engine.Engine.backward", never)
    result = train_tag_encoder(config)
    assert not result.skipped
    assert result.summary["registered"].startswith("models:/lion-tag-encoder/")


def test_a_dynamic_stage_takes_its_tag_encoder_from_the_registry(
    encoder_run: Path, world: World, lion: str, out: str
) -> None:
    config = stage_config(
        world, lion, out, prompt=PromptSettings("dynamic", tokens=2), tag_encoder="models:/lion-tag-encoder@candidate"
    )
    result = train_stage(config)
    manifest = read_manifest(result.path)
    assert manifest["lineage"]["parent.tag_encoder"].startswith("models:/lion-tag-encoder/")
    assert {"validation_loss/caption", "validation_loss/vqa"} <= set(manifest["metrics"])
    trained = LionForConditionalGeneration.from_pretrained(Path(result.path) / "model")
    start = LionForConditionalGeneration.from_pretrained(lion).state_dict()
    # A later test's encoder may be the candidate by now: the lineage names the version that was taken.
    encoder = TagEncoder.from_pretrained(resolve(manifest["lineage"]["parent.tag_encoder"], out=out)).state_dict()
    changed = {
        name for name, value in trained.state_dict().items() if name in start and not torch.equal(value, start[name])
    }
    assert any("image_down" in name or "image_up" in name for name in changed)
    assert not any(name.startswith("vision_model") or "region" in name for name in changed)
    for name, value in trained.tag_encoder.state_dict().items():
        assert torch.equal(value, encoder[name])
    processor = LionProcessor.from_pretrained(Path(result.path) / "model")
    assert processor.prompt_text("What?").count("<extra_id_0>") == 2
    rates = [json.loads(line) for line in (Path(result.path) / "metrics.jsonl").read_text().splitlines()]
    first = next(record for record in rates if record["kind"] == "train")
    assert first["learning_rate/projector"] == pytest.approx(5 * first["learning_rate/q_former"])


def test_stage_three_grows_from_both_stages(world: World, lion: str, out: str) -> None:
    parents = [train_stage(stage_config(world, lion, out, stage=stage)).path for stage in (1, 2)]
    result = train_stage(stage_config(world, parents, out, stage=3, loop=dataclasses.replace(LOOP, steps=1)))
    assert read_manifest(result.path)["lineage"].keys() >= {"parent.parent1", "parent.parent2"}
    assert resolve("models:/lion-stage3@candidate", out=out)


def test_a_stage_says_what_it_lacks(world: World, lion: str, out: str, tag_encoder: str) -> None:
    for changes, sentence in (
        ({"prompt": PromptSettings("dynamic")}, "needs a trained tag encoder"),
        ({"groups": ["q_fomer"]}, "is no group of a LION"),
        ({"groups": ["vision_model"]}, "stays frozen"),
        ({"mix": {"pope": 1.0}}, "no 'pope' samples"),
        ({"parents": [lion, lion]}, "Stage 1 has 2 parents"),
        ({"parents": tag_encoder}, "not a LION"),
        ({"tag_encoder": tag_encoder}, "reads no tag encoder"),
        ({"tagged": "/nowhere"}, "/nowhere does not exist"),
    ):
        with pytest.raises(UserError, match=sentence):
            train_stage(dataclasses.replace(stage_config(world, lion, out), **changes))
