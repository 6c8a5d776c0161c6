"""Failures of trainings: the message of each, and the checkpoints that remain."""

import contextlib
import dataclasses
import logging
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from pipelines.core.errors import UserError
from pipelines.core.resources import LaunchConfig
from pipelines.core.tables import INSTRUCTIONS, TAGGED, to_table
from pipelines.registry import Registry, RegistryConfig
from pipelines.training.callbacks import Callback, LogToMlflow, Step, catch_up
from pipelines.training.checkpoint import Checkpoints
from pipelines.training.config import LoopConfig, OptimizerConfig, TrainStageConfig, TrainTagEncoderConfig
from pipelines.training.context import current
from pipelines.training.loop import train
from pipelines.training.runs import train_tag_encoder
from pipelines.training.stage import StageTask
from pipelines.training.tag_encoder import TagEncoderTask
from tests.pipelines.training.conftest import World
from tests.ports import free_port

OPTIMIZER = OptimizerConfig(learning_rate=1e-3)
LOOP = LoopConfig(steps=4, batch_size=6, checkpoint_every=1, keep_checkpoints=9, log_every=1)


def encoder_task(world: World, start: str, kind: type[TagEncoderTask] = TagEncoderTask) -> TagEncoderTask:
    settings = TrainTagEncoderConfig(world.tagged, start, normalize=True, loop=LOOP, optimizer=OPTIMIZER)
    return kind(settings, world.tagged, start, "digest")


def run(task: Any, folder: Path, *callbacks: Any, **loop: Any) -> Any:
    return train(task, dataclasses.replace(LOOP, **loop), OPTIMIZER, current(), str(folder), "identity", callbacks)


class Exploding(TagEncoderTask):
    """A task whose gradient is no number from the third step on, while its loss is finite."""

    def forward(self, model: Any, batch: Any) -> Any:
        output = super().forward(model, batch)
        self.__dict__["calls"] = self.__dict__.get("calls", 0) + 1
        if self.__dict__["calls"] <= 3:  # one of them is the validation before the first step
            return output
        return dataclasses.replace(output, loss=output.loss + (output.loss * 0.0).sqrt())


@pytest.mark.parametrize(("zero_stage", "precision"), [(0, "fp32"), (1, "fp32"), (2, "bf16"), (3, "fp32")])
def test_an_exploding_gradient_stops_and_leaves_the_checkpoint_before(
    zero_stage: int, precision: str, world: World, tag_encoder: str, tmp_path: Path
) -> None:
    task = encoder_task(world, tag_encoder, Exploding)
    with pytest.raises(UserError, match=r"gradient's norm of step 2 is (nan|inf) \(learning rate .*image-\d+"):
        run(task, tmp_path, zero_stage=zero_stage, precision=precision)
    checkpoints = Checkpoints(str(tmp_path), 9)
    assert checkpoints.steps() == [1, 2]
    assert all(torch.isfinite(value).all() for value in checkpoints.weights(2).values())


def test_fp16_without_a_gpu_is_refused(world: World, tag_encoder: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fp16, which DeepSpeed runs on GPUs only"):
        run(encoder_task(world, tag_encoder), tmp_path, precision="fp16")


def stage_task(samples: str, images: str, lion: str) -> StageTask:
    settings = TrainStageConfig(samples, images, lion, loop=LOOP, optimizer=OPTIMIZER)
    return StageTask(settings, samples, images, lion, None, (("parent1", "digest"),))


def test_a_stage_without_samples_is_refused(world: World, lion: str, tmp_path: Path) -> None:
    empty = tmp_path / "instructions.parquet"
    pq.write_table(INSTRUCTIONS.empty_table(), empty)
    with pytest.raises(UserError, match=r"has no 'image' samples to train on; its levels and tasks are \[\]"):
        run(stage_task(str(empty), world.tagged, lion), tmp_path)


def test_an_image_that_vanishes_stops_a_training_that_goes_on_when_it_is_back(
    world: World, lion: str, tmp_path: Path
) -> None:
    path = tmp_path / "vanishing.png"
    path.write_bytes(Path(world.images[0]["uri"]).read_bytes())
    rows = to_table([{**row, "uri": str(path)} for row in world.images], TAGGED)
    pq.write_table(rows, tmp_path / "tagged.parquet")
    task = stage_task(world.instructions, str(tmp_path / "tagged.parquet"), lion)

    class Vanish(Callback):
        def step(self, step: Step) -> None:
            path.unlink(missing_ok=True)

    with pytest.raises(UserError, match=r"image of sample \S+ cannot be read any more \(missing.*put it back"):
        run(task, tmp_path / "run", Vanish(), prefetch=1)
    assert Checkpoints(str(tmp_path / "run"), 9).steps() == [1]
    path.write_bytes(Path(world.images[0]["uri"]).read_bytes())
    assert run(task, tmp_path / "run").step == 4


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limit files to `size` bytes: the kernel refuses larger writes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_a_sentence_and_costs_no_checkpoint_before(
    world: World, tag_encoder: str, tmp_path: Path
) -> None:
    task = encoder_task(world, tag_encoder)
    run(task, tmp_path, steps=1)
    whole = (tmp_path / "step-00000001" / "weights.safetensors").stat().st_size
    with largest_file(whole + 4096), pytest.raises(UserError, match=r"could not be written .* make room"):
        run(task, tmp_path)  # the weights fit, the optimizer's state does not
    assert Checkpoints(str(tmp_path), 9).steps() == [1]
    assert not list(tmp_path.rglob("*.partial"))
    assert run(task, tmp_path).step == 4


def test_an_absent_mlflow_stops_before_anything_is_computed(world: World, tag_encoder: str, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    config = TrainTagEncoderConfig(
        world.tagged, tag_encoder, loop=LOOP, launch=LaunchConfig("local"), out=str(tmp_path),
        registry=RegistryConfig(tracking_uri=address),
    )  # fmt: skip
    with pytest.raises(UserError, match="does not answer"):
        train_tag_encoder(config)
    assert not list(tmp_path.rglob("checkpoints"))


def test_an_mlflow_that_answers_no_more_stops_no_training_and_is_caught_up(
    world: World, tag_encoder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(RegistryConfig(), str(tmp_path / "runs"))
    run_id = registry.open_run("late", "f" * 64)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes requests and never answers
        stalled = LogToMlflow(f"http://127.0.0.1:{silent.getsockname()[1]}", run_id, patience=0.2)
        with caplog.at_level(logging.WARNING, "lion.training"):
            state = run(encoder_task(world, tag_encoder), tmp_path / "run", stalled)
            stalled.close()
    assert state.step == 4
    assert f"lacks {len(state.history)} records of metrics" in caplog.text
    assert catch_up(registry.client, run_id, state.history[:2]) == 2
    assert catch_up(registry.client, run_id, state.history) == len(state.history) - 2
    assert catch_up(registry.client, run_id, state.history) == 0
    logged = registry.client.get_metric_history(run_id, "train/loss")
    expected = [record["loss"] for record in state.history if record["kind"] == "train"]
    assert [point.value for point in logged] == expected
