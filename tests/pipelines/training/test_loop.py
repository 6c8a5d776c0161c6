"""Promises P3, P5, P6 in one process: exact resume, other settings on resume, what a checkpoint holds."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models.lion import parameter_group
from models.tag_encoder import TagEncoder
from pipelines.core.errors import UserError
from pipelines.training.callbacks import Callback, Step
from pipelines.training.checkpoint import Checkpoints
from pipelines.training.config import (
    LoopConfig,
    OptimizerConfig,
    PromptSettings,
    TrainStageConfig,
    TrainTagEncoderConfig,
)
from pipelines.training.context import current
from pipelines.training.loop import train
from pipelines.training.stage import StageTask
from pipelines.training.tag_encoder import TagEncoderTask
from tests.pipelines.training.conftest import World

STEPS = 7
OPTIMIZER = OptimizerConfig(learning_rate=1e-3, warmup=2)


class Seen(Callback):
    """A callback that keeps all steps, and interrupts the training after one of them."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.steps: list[Step] = []

    def step(self, step: Step) -> None:
        self.steps.append(step)
        if step.step == self.stop_after:
            raise KeyboardInterrupt

    @property
    def by_step(self) -> dict[int, tuple[float, list[str]]]:
        """Loss and sample ids of every step; of a repeated step, those of the repetition."""
        return {step.step: (step.loss, step.ids) for step in self.steps}


def encoder_task(world: World, tag_encoder: str, **changes: Any) -> TagEncoderTask:
    loop = LoopConfig(steps=STEPS, batch_size=10, checkpoint_every=2, validate_every=5, keep_checkpoints=9)
    # Unit vectors: otherwise the last LayerNorm's bias cancels out of every distance, and AdamW blows up its gradient,
    # which is rounding alone, into steps that differ from one ZeRO stage to the next.
    settings = TrainTagEncoderConfig(world.tagged, tag_encoder, normalize=True, loop=loop, optimizer=OPTIMIZER)
    return TagEncoderTask(dataclasses.replace(settings, **changes), world.tagged, tag_encoder, "digest")


def stage_task(world: World, lion: str, tag_encoder: str, **changes: Any) -> StageTask:
    loop = LoopConfig(steps=STEPS, batch_size=8, checkpoint_every=3, keep_checkpoints=9, log_every=1)
    settings = TrainStageConfig(
        world.instructions, world.tagged, lion, stage=3, prompt=PromptSettings("both"), loop=loop,
        optimizer=dataclasses.replace(OPTIMIZER, learning_rate_scale={"projector": 5.0}),
    )  # fmt: skip
    settings = dataclasses.replace(settings, **changes)
    return StageTask(settings, world.instructions, world.tagged, lion, tag_encoder, (("parent1", "digest"),))


def run(task: Any, folder: Path, seen: Callback | None = None, **loop: Any) -> Any:
    settings = task.settings
    changed = dataclasses.replace(settings.loop, **loop)
    return train(task, changed, settings.optimizer, current(), str(folder), "identity", [seen] if seen else [])


def run_in_two(task: Any, folder: Path, seen: Seen) -> None:
    """Train until `seen` interrupts the training, then resume it."""
    with pytest.raises(KeyboardInterrupt):
        run(task, folder, seen)
    seen.stop_after = None
    run(task, folder, seen)


def tensors(folder: Path, step: int) -> dict[str, torch.Tensor]:
    path = folder / f"step-{step:08d}"
    return {**load_file(path / "weights.safetensors"), **load_file(path / "optimizer.safetensors")}


@pytest.fixture(scope="module")
def undisturbed(world: World, tag_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Seen]:
    """The folder and steps of a tag encoder that was trained without interruption, with dropout."""
    folder, seen = tmp_path_factory.mktemp("undisturbed"), Seen()
    run(encoder_task(world, tag_encoder), folder, seen)
    return folder, seen


@pytest.mark.parametrize("stop_after", [0, 3, 4])
def test_stopped_and_resumed_is_equal_to_undisturbed(
    stop_after: int, world: World, tag_encoder: str, undisturbed: tuple[Path, Seen], tmp_path: Path
) -> None:
    folder, whole = undisturbed
    seen, task = Seen(stop_after), encoder_task(world, tag_encoder)
    run_in_two(task, tmp_path, seen)
    assert len(seen.steps) > STEPS - 1
    assert seen.by_step == whole.by_step  # ids and losses, to the last digit
    for name, value in tensors(folder, STEPS).items():
        assert torch.equal(tensors(tmp_path, STEPS)[name], value), name


def test_a_stage_resumes_exactly_too(world: World, lion: str, tag_encoder: str, tmp_path: Path) -> None:
    whole, seen = Seen(), Seen(stop_after=4)
    task = stage_task(world, lion, tag_encoder)
    run(task, tmp_path / "whole", whole)
    run_in_two(task, tmp_path / "broken", seen)
    assert seen.by_step == whole.by_step
    for name, value in tensors(tmp_path / "whole", STEPS).items():
        assert torch.equal(tensors(tmp_path / "broken", STEPS)[name], value), name


@pytest.mark.parametrize("zero_stage", [0, 2])
def test_a_stage_of_single_samples_resumes_exactly(
    zero_stage: int, world: World, lion: str, tag_encoder: str, tmp_path: Path
) -> None:
    """With single rows, results depend on the memory alignment of weights, which differs in a checkpoint."""
    loop = LoopConfig(steps=STEPS, batch_size=4, micro_batch_size=1, checkpoint_every=3, zero_stage=zero_stage)  # type: ignore[arg-type]
    whole, seen = Seen(), Seen(stop_after=4)
    task = stage_task(world, lion, tag_encoder, loop=loop)
    run(task, tmp_path / "whole", whole)
    run_in_two(task, tmp_path / "broken", seen)
    assert seen.by_step == whole.by_step


@pytest.mark.parametrize("stages", [(0, 2), (2, 3), (3, 1), (1, 0)])
def test_a_run_may_change_its_zero_stage_on_resume(
    stages: tuple[int, int], world: World, tag_encoder: str, undisturbed: tuple[Path, Seen], tmp_path: Path
) -> None:
    folder, whole = undisturbed
    seen, task = Seen(stop_after=4), encoder_task(world, tag_encoder)
    with pytest.raises(KeyboardInterrupt):
        run(task, tmp_path, seen, zero_stage=stages[0])
    seen.stop_after = None
    run(task, tmp_path, seen, zero_stage=stages[1])
    assert [ids for _, ids in seen.by_step.values()] == [ids for _, ids in whole.by_step.values()]
    for step, (loss, _) in whole.by_step.items():
        assert seen.by_step[step][0] == pytest.approx(loss, abs=1e-5)
    for name, value in tensors(folder, STEPS).items():
        torch.testing.assert_close(tensors(tmp_path, STEPS)[name], value, atol=2e-5, rtol=1e-4)


def test_micro_batches_change_nothing_but_memory(world: World, tag_encoder: str, tmp_path: Path) -> None:
    task = encoder_task(world, tag_encoder, dropout=0.0)
    whole, pieces = Seen(), Seen()
    run(task, tmp_path / "whole", whole)
    run(task, tmp_path / "pieces", pieces, micro_batch_size=3)  # 10 = 2 + 3 + 2 + 3
    for first, second in zip(whole.steps, pieces.steps, strict=True):
        assert first.ids == second.ids
        assert second.loss == pytest.approx(first.loss, abs=1e-5)


def test_a_checkpoint_holds_what_is_trained_and_nothing_else(
    world: World, lion: str, tag_encoder: str, tmp_path: Path
) -> None:
    task = stage_task(world, lion, tag_encoder)
    run(task, tmp_path, steps=1)
    weights = load_file(tmp_path / "step-00000001" / "weights.safetensors")
    model = task.build()
    assert set(weights) == {name for name, value in model.named_parameters() if value.requires_grad}
    assert {parameter_group(name) for name in weights} == set(task.settings.trained_groups)
    assert {value.dtype for value in weights.values()} == {torch.float32}
    state = json.loads((tmp_path / "step-00000001" / "state.json").read_text())
    assert state["base"] == {"parent1": "digest"}
    every = sum(value.numel() for value in model.parameters()) * 4
    assert (tmp_path / "step-00000001" / "weights.safetensors").stat().st_size < every


def test_bf16_keeps_fp32_masters_and_resumes(world: World, tag_encoder: str, tmp_path: Path) -> None:
    whole, seen = Seen(), Seen(stop_after=4)
    loop = dataclasses.replace(encoder_task(world, tag_encoder).settings.loop, precision="bf16")
    task = encoder_task(world, tag_encoder, loop=loop)
    run(task, tmp_path / "whole", whole)
    run_in_two(task, tmp_path / "broken", seen)
    assert seen.by_step == whole.by_step
    weights = load_file(tmp_path / "whole" / f"step-{STEPS:08d}" / "weights.safetensors")
    assert any((value != value.bfloat16().float()).any() for value in weights.values())


def test_another_trainings_checkpoints_are_not_taken(world: World, tag_encoder: str, tmp_path: Path) -> None:
    task = encoder_task(world, tag_encoder)
    run(task, tmp_path, steps=1)
    with pytest.raises(UserError, match="another training"):
        train(task, task.settings.loop, OPTIMIZER, current(), str(tmp_path), "other identity")


def test_a_checkpoint_without_its_state_does_not_count(world: World, tag_encoder: str, tmp_path: Path) -> None:
    run(encoder_task(world, tag_encoder), tmp_path)
    checkpoints = Checkpoints(str(tmp_path), 9)
    assert checkpoints.steps() == [2, 4, 5, 6, 7]
    (tmp_path / "step-00000007" / "state.json").unlink()
    assert checkpoints.steps() == [2, 4, 5, 6]


def test_the_last_and_the_best_checkpoint_stay(world: World, tag_encoder: str, tmp_path: Path) -> None:
    state = run(encoder_task(world, tag_encoder), tmp_path, keep_checkpoints=1)
    assert Checkpoints(str(tmp_path), 1).steps() == sorted({state.best_step, STEPS})


def test_the_loss_falls_and_the_encoder_learns(world: World, tag_encoder: str, tmp_path: Path) -> None:
    optimizer = OptimizerConfig(learning_rate=3e-3, warmup=0.1)
    loop = LoopConfig(epochs=12, batch_size=12)
    task = encoder_task(world, tag_encoder, loop=loop, optimizer=optimizer, validation_fraction=0.2, pooling="mean")
    records = [record for record in run(task, tmp_path).history if record["kind"] == "validation"]
    assert records[-1]["loss"] < 0.7 * records[0]["loss"]
    gap = [record["cosine_positive"] - record["cosine_negative"] for record in records]
    assert gap[-1] > gap[0] + 0.1


class Broken(TagEncoderTask):
    """A task whose loss is no number from the third step on."""

    def forward(self, model: Any, batch: Any) -> Any:
        output = super().forward(model, batch)
        self.__dict__["calls"] = self.__dict__.get("calls", 0) + 1
        return dataclasses.replace(output, loss=output.loss * float("nan")) if self.__dict__["calls"] > 3 else output


def test_a_loss_that_is_no_number_stops_with_a_sentence(world: World, tag_encoder: str, tmp_path: Path) -> None:
    task = encoder_task(world, tag_encoder)
    broken = Broken(task.settings, task.table, task.start, task.start_digest)
    with pytest.raises(UserError, match=r"loss of step 2 is nan \(learning rate tag_encoder .*image-\d+"):
        run(broken, tmp_path)
    assert Checkpoints(str(tmp_path), 9).steps() == [2]  # of before


def test_an_image_that_vanished_is_named(world: World, lion: str, tag_encoder: str, tmp_path: Path) -> None:
    task = stage_task(world, lion, tag_encoder)
    data = task.data()
    data._images = data._images.set_column(1, "uri", [["/nowhere.png"] * len(data._images)])
    from pipelines.training.order import Draw

    with pytest.raises(UserError, match=r"image of sample \S+ cannot be read any more \(missing"):
        data.load(Draw(0, 0, 0))


def test_build_gives_the_base_model(world: World, tag_encoder: str) -> None:
    model = encoder_task(world, tag_encoder).build()
    for name, value in TagEncoder.from_pretrained(tag_encoder).state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_groups_in_fp32_stay_so_and_resume_exactly(world: World, lion: str, tag_encoder: str, tmp_path: Path) -> None:
    whole, seen = Seen(), Seen(stop_after=4)
    kept = ["router", "ln_vision", "vision_model"]
    loop = LoopConfig(steps=STEPS, batch_size=8, checkpoint_every=3, keep_checkpoints=9, precision="bf16", zero_stage=2)
    task = stage_task(world, lion, tag_encoder, loop=loop, fp32_groups=kept)
    run(task, tmp_path / "whole", whole)
    run_in_two(task, tmp_path / "broken", seen)
    assert seen.by_step == whole.by_step
    for name, parameter in task.build().named_parameters():
        assert parameter.dtype == (torch.float32 if parameter_group(name) in kept else torch.bfloat16), name
    with pytest.raises(UserError, match="below 3"):
        stage_task(world, lion, tag_encoder, fp32_groups=kept)
