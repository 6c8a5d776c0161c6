"""SIGTERM: the training saves, ends with a message, and resumes exactly (P3)."""

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines.core.errors import Stopped
from pipelines.core.resources import LaunchConfig
from pipelines.core.runtime import RayConfig
from pipelines.training.checkpoint import Checkpoints
from pipelines.training.config import LoopConfig, OptimizerConfig, TrainTagEncoderConfig
from pipelines.training.interrupts import Interrupts
from pipelines.training.launch import WorkerJob, launch
from pipelines.training.tag_encoder import TagEncoderTask
from tests.pipelines.training.conftest import World

STEPS = 6
LOCAL = LaunchConfig("local", cpus_per_worker=1)
OPTIMIZER = OptimizerConfig(learning_rate=1e-3, warmup=2)


class Signalled(TagEncoderTask):
    """A task that sends SIGTERM to its process in the n-th forward pass of training or validation."""

    def at(self, training: bool, turn: int) -> "Signalled":
        self.__dict__["left"] = {training: turn}
        return self

    def forward(self, model: Any, batch: Any) -> Any:
        left = self.__dict__.get("left", {})
        training = model.module.training  # DeepSpeed's engine itself always says that it trains
        if training in left:
            left[training] -= 1
            if left[training] == 0:
                os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(model, batch)


def make_job(world: World, start: str, folder: Path) -> WorkerJob:
    # Two micro-batches a step, and two batches of validation, so that the signal comes in the middle of either.
    loop = LoopConfig(steps=STEPS, batch_size=10, micro_batch_size=5, validate_every=3, checkpoint_every=99,
                      keep_checkpoints=9, trace=True)  # fmt: skip
    settings = TrainTagEncoderConfig(
        world.tagged, start, normalize=True, validation_fraction=0.2, loop=loop, optimizer=OPTIMIZER
    )
    task = Signalled(settings, world.tagged, start, "digest")
    return WorkerJob(task, loop, OPTIMIZER, str(folder), "identity", "stopped")


def seen(folder: Path) -> dict[int, tuple[float, list[str]]]:
    lines = [json.loads(line) for line in (folder / "trace" / "rank-0.jsonl").read_text().splitlines()]
    return {line["step"]: (line["loss"], line["ids"]) for line in lines}


def end(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Return the tensors and the validations of the last checkpoint."""
    path = folder / "checkpoints" / f"step-{STEPS:08d}"
    history = json.loads((path / "state.json").read_text())["history"]
    tensors = {**load_file(path / "weights.safetensors"), **load_file(path / "optimizer.safetensors")}
    return tensors, [record for record in history if record["kind"] == "validation"]


@pytest.fixture(scope="module")
def whole(world: World, tag_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the training without a signal."""
    folder = tmp_path_factory.mktemp("whole")
    launch(make_job(world, tag_encoder, folder), LOCAL, RayConfig())
    return folder


@pytest.mark.parametrize(
    ("training", "turn", "saved"),
    [
        (True, 4, [2]),  # in step 1: after it
        (True, 5, [3]),  # in step 2, after which it would validate: saved first, validated after the resume
        (False, 4, [3]),  # in the validation after step 2
        (True, 12, [3, 6]),  # in the last step
        (False, 1, []),  # before the first step
    ],
)
def test_sigterm_saves_first_and_the_training_goes_on_exactly(
    training: bool, turn: int, saved: list[int], world: World, tag_encoder: str, tmp_path: Path, whole: Path
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    job = make_job(world, tag_encoder, tmp_path)
    sentence = rf"after step {saved[-1]} of {STEPS}, which is saved" if saved else "before the first step"
    with pytest.raises(Stopped, match=sentence):
        launch(dataclasses.replace(job, task=job.task.at(training, turn)), LOCAL, RayConfig())
    assert signal.getsignal(signal.SIGTERM) is handler
    assert Checkpoints(job.checkpoints, 9).steps() == saved
    launch(make_job(world, tag_encoder, tmp_path), LOCAL, RayConfig())
    assert seen(tmp_path) == seen(whole)
    (expected, validations), (resumed, validated) = end(whole), end(tmp_path)
    assert validated == validations
    for name, value in expected.items():
        assert torch.equal(resumed[name], value), name


def test_a_drivers_mark_is_heard_by_a_worker_that_no_signal_reaches(tmp_path: Path) -> None:
    interrupts = Interrupts(str(tmp_path / "mark"), every=0.01)
    with interrupts.listening():
        assert not interrupts._stop.wait(0.1)
        (tmp_path / "mark").touch()
        assert interrupts._stop.wait(5)


def test_each_machine_that_is_about_to_be_taken_is_news_once() -> None:
    announcements: list[Any] = [None, "a", "a", "b"]
    interrupts = Interrupts(preemption=lambda: announcements.pop(0), patience=0.0)
    assert interrupts.due()
    assert [interrupts.preempted() for _ in range(4)] == [False, True, False, True]
    assert not Interrupts().due()
