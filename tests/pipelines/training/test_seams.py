"""Callbacks and losses that come from outside the package, and the way from a verb to the loop."""

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from ray import cloudpickle
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from jobs.train_tag_encoder import run as run_verb
from pipelines.core.errors import UserError
from pipelines.core.resources import LaunchConfig
from pipelines.core.steps import canonical, digest_of, read_manifest
from pipelines.training.callbacks import CALLBACKS, Callback, Step, TrainingView, callback_factory, register_callback
from pipelines.training.config import LoopConfig, TrainStageConfig, TrainTagEncoderConfig
from pipelines.training.context import current
from pipelines.training.launch import WorkerJob
from pipelines.training.loop import train
from pipelines.training.losses import LOSSES, find_loss, register_loss
from pipelines.training.memory import estimate
from pipelines.training.tag_encoder import TagEncoderTask
from tests.pipelines.training.conftest import World
from tests.pipelines.training.test_loop import OPTIMIZER, Seen, encoder_task, tensors

DECAY = 0.5


class Ema(Callback):
    """A moving average of the trained weights, saved with each checkpoint and resumed from it."""

    def setup(self, view: TrainingView) -> None:
        self._view = view
        self.average = {name: value.detach().clone() for name, value in view.engine.trainable.items()}

    def start(self, step: int, steps: int, context: Any) -> None:
        if step:
            self.average = load_file(self._file(step))

    def step(self, step: Step) -> None:
        for name, value in self._view.engine.trainable.items():
            self.average[name].mul_(DECAY).add_(value.detach(), alpha=1 - DECAY)

    def checkpoint(self, step: int) -> None:
        Path(self._file(step)).parent.mkdir(parents=True, exist_ok=True)
        save_file(self.average, self._file(step))

    def _file(self, step: int) -> str:
        return f"{self._view.checkpoints.path(step)}/ema.safetensors"


class Sampler(Callback):
    """The vector of one sample after each validation, from the model that is trained."""

    def setup(self, view: TrainingView) -> None:
        data = view.task.data()
        self._batch = data.collate([data.load(data.validation[0])])
        self._view, self.vectors = view, list[Tensor]()

    def record(self, record: dict[str, Any]) -> None:
        if record["kind"] == "validation":
            inputs = {name: value for name, value in self._batch.tensors.items() if name != "owner"}
            with self._view.engine.evaluating():
                self.vectors.append(self._view.model(**inputs))
            torch.rand(7)  # a callback may draw random numbers


class StackOfStep(Callback):
    """The project's files and functions that were active at the last step of any training."""

    calls: list[tuple[str, str]]

    def step(self, step: Step) -> None:
        root = Path(__file__).parents[3]
        frames = [frame for frame in inspect.stack()[1:] if root in Path(frame.filename).parents]
        type(self).calls = [
            (Path(frame.filename).relative_to(root).as_posix(), frame.function)
            for frame in reversed(frames)
            if not frame.filename.startswith((str(root / "tests"), str(root / ".venv")))
        ]


def cosine_loss(anchor: Tensor, positive: Tensor, negative: Tensor, settings: TrainTagEncoderConfig) -> Tensor:
    """A loss from outside the package: the difference of two cosines."""
    return nn.functional.cosine_similarity(anchor, negative) - nn.functional.cosine_similarity(anchor, positive)


@pytest.fixture(autouse=True)
def restored_registries() -> Iterator[None]:
    """Undo the registrations of a test."""
    with patch.dict(CALLBACKS), patch.dict(LOSSES):
        yield


def config(world: World, tag_encoder: str, out: Path, loop: LoopConfig, **changes: Any) -> TrainTagEncoderConfig:
    launch = LaunchConfig("local", cpus_per_worker=1)
    return TrainTagEncoderConfig(world.tagged, tag_encoder, loop=loop, launch=launch, out=str(out), **changes)


def train_with(task: TagEncoderTask, folder: Path, *callbacks: Callback, **loop: Any) -> None:
    settings = dataclasses.replace(task.settings.loop, **loop)
    train(task, settings, OPTIMIZER, current(), str(folder), "identity", callbacks)


def test_an_ema_callback_averages_the_weights_of_every_step(world: World, tag_encoder: str, tmp_path: Path) -> None:
    task, ema = encoder_task(world, tag_encoder), Ema()
    train_with(task, tmp_path, ema, steps=3, checkpoint_every=1)
    expected = {name: value.detach() for name, value in task.build().named_parameters()}
    for step in (1, 2, 3):
        weights = tensors(tmp_path, step)
        expected = {name: DECAY * value + (1 - DECAY) * weights[name] for name, value in expected.items()}
    for name, value in expected.items():
        torch.testing.assert_close(ema.average[name], value, atol=1e-6, rtol=1e-6)


def test_an_ema_callback_resumes_exactly(world: World, tag_encoder: str, tmp_path: Path) -> None:
    task, whole, seen, resumed = encoder_task(world, tag_encoder), Ema(), Seen(stop_after=4), Ema()
    train_with(task, tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        train_with(task, tmp_path / "broken", Ema(), seen)
    train_with(task, tmp_path / "broken", resumed)
    for name, value in whole.average.items():
        assert torch.equal(resumed.average[name], value), name


def test_a_sampling_callback_sees_the_model_and_changes_no_loss(world: World, tag_encoder: str, tmp_path: Path) -> None:
    task, sampler, seen, plain = encoder_task(world, tag_encoder), Sampler(), Seen(), Seen()
    train_with(task, tmp_path / "plain", plain)
    train_with(task, tmp_path / "sampled", sampler, seen)
    assert seen.by_step == plain.by_step
    assert len(sampler.vectors) == 3  # validations before the first step, after step 5 and after the last step
    assert not torch.equal(sampler.vectors[0], sampler.vectors[-1])


def test_a_registered_callback_is_named_in_the_configuration(world: World, tag_encoder: str, tmp_path: Path) -> None:
    register_callback("ema", Ema)
    loop = LoopConfig(steps=2, batch_size=6, callbacks=("ema",), keep_after=True)
    result = run_verb(config(world, tag_encoder, tmp_path, loop))
    assert (Path(result.path) / "checkpoints" / "step-00000002" / "ema.safetensors").exists()
    with pytest.raises(ValueError, match="'ema' is taken"):
        register_callback("ema", Sampler)


def test_a_training_step_passes_few_files(world: World, tag_encoder: str, tmp_path: Path) -> None:
    """The verb, the life of a training, the runner of steps, the launcher, the loop, and the log of the step."""
    loop = LoopConfig(steps=1, batch_size=6, callbacks=(f"{__name__}:StackOfStep",))
    run_verb(config(world, tag_encoder, tmp_path, loop))
    files = list(dict.fromkeys(file for file, _ in StackOfStep.calls))
    assert files == [
        "jobs/train_tag_encoder.py",
        "pipelines/training/runs.py",
        "pipelines/core/steps.py",
        "pipelines/training/launch.py",
        "pipelines/training/loop.py",
        "pipelines/training/training_run.py",
    ]
    assert StackOfStep.calls[-2] == ("pipelines/training/loop.py", "train")


def test_a_callback_and_a_loss_reach_other_processes(world: World, tag_encoder: str) -> None:
    register_callback("ema", Ema)
    register_loss("cosine", cosine_loss)
    task = encoder_task(world, tag_encoder, loss="cosine")
    job = WorkerJob(task, LoopConfig(callbacks=("ema",)), OPTIMIZER, "/f", "i", "n")
    pickled = cloudpickle.dumps(job)
    CALLBACKS.pop("ema")
    LOSSES.pop("cosine")
    copy = cloudpickle.loads(pickled)
    assert isinstance(copy.callbacks[0](), Ema)
    assert copy.task.loss is cosine_loss


def test_a_loss_from_outside_trains_the_tag_encoder(world: World, tag_encoder: str, tmp_path: Path) -> None:
    register_loss("cosine", cosine_loss)
    loop = LoopConfig(steps=3, batch_size=6, log_every=1, validate_every=1)
    triplet, cosine = (
        run_verb(config(world, tag_encoder, tmp_path, loop, loss=loss)) for loss in ("triplet", "cosine")
    )
    assert triplet.path != cosine.path
    metrics = read_manifest(cosine.path)["metrics"]
    assert metrics["validation_loss"] == pytest.approx(-metrics["validation_cosine_gap"], abs=1e-6)
    assert read_manifest(cosine.path)["config"]["loss"] == "cosine"
    with pytest.raises(ValueError, match="'triplet' is taken"):
        register_loss("triplet", cosine_loss)


def test_a_loss_may_be_named_by_its_path(world: World, tag_encoder: str) -> None:
    assert encoder_task(world, tag_encoder, loss=f"{__name__}:cosine_loss").loss is cosine_loss


def test_the_memory_estimate_uses_the_loss(world: World, tag_encoder: str) -> None:
    calls: list[int] = []

    def counted(anchor: Tensor, positive: Tensor, negative: Tensor, settings: Any) -> Tensor:
        calls.append(len(anchor))
        return cosine_loss(anchor, positive, negative, settings)

    register_loss("counted", counted)
    task = encoder_task(world, tag_encoder, loss="counted")
    estimate(task, LoopConfig(batch_size=4), LaunchConfig())
    assert calls == [4]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cosin", "'cosin', which is not registered"),
        ("no_such_package.module:name", "cannot be imported"),
        ("json:no_such_name", "cannot be imported"),
    ],
)
def test_an_unknown_callback_or_loss_is_refused(
    name: str, sentence: str, world: World, tag_encoder: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"loss.*{sentence}"):
        find_loss(name)
    with pytest.raises(UserError, match=f"loop.callbacks.*{sentence}"):
        callback_factory(name)
    with pytest.raises(UserError, match=sentence):
        run_verb(config(world, tag_encoder, tmp_path, LoopConfig(steps=1, callbacks=(name,))))
    assert not list(tmp_path.rglob("checkpoints"))


def test_the_new_fields_leave_the_hashes_of_existing_configurations() -> None:
    assert digest_of(canonical(TrainTagEncoderConfig("d")))[:16] == "ff33033a4db76565"
    assert digest_of(canonical(TrainStageConfig("d", "t", "p")))[:16] == "c799a0e83b11602a"
    assert canonical(TrainTagEncoderConfig("d", loss="cosine"))["loss"] == "cosine"
    assert canonical(LoopConfig(callbacks=("ema",)))["callbacks"] == ["ema"]
