"""The memory estimate against the memory of a tiny training."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.core.errors import UserError
from pipelines.core.resources import LaunchConfig
from pipelines.training.config import LoopConfig, OptimizerConfig, PromptSettings, TrainStageConfig
from pipelines.training.context import current
from pipelines.training.data import Batch
from pipelines.training.engine import Engine
from pipelines.training.memory import GIB, MemoryEstimate, estimate, peak_bytes, state_bytes
from pipelines.training.runs import train_stage
from pipelines.training.stage import StageTask
from tests.pipelines.training.conftest import World

OPTIMIZER = OptimizerConfig(learning_rate=1e-3)


def stage_task(world: World, lion: str, tag_encoder: str, **changes: Any) -> StageTask:
    settings = TrainStageConfig(
        world.instructions, world.tagged, lion, stage=3, prompt=PromptSettings("both"), max_text_length=128,
        max_answer_length=16, optimizer=OPTIMIZER,
    )  # fmt: skip
    settings = dataclasses.replace(settings, **changes)
    return StageTask(settings, world.instructions, world.tagged, lion, tag_encoder, (("parent1", "digest"),))


def held(engine: Engine) -> dict[str, int]:
    """Return the bytes of an engine's tensors, by the names of the estimate."""
    model, memory = engine.module.module, dict[str, int]()
    for parameter in model.parameters():
        kind = "trained" if parameter.requires_grad else "frozen"
        name = f"{kind} weights in {'fp32' if parameter.dtype == torch.float32 else 'bf16'}"
        memory[name] = memory.get(name, 0) + parameter.nbytes
    states = [engine._adamw().state[tensor] for tensor in engine._master_tensors()]
    memory["AdamW's moments"] = sum(state["exp_avg"].nbytes + state["exp_avg_sq"].nbytes for state in states)
    if engine._wrapped() is not None:
        memory["fp32 master weights"] = sum(tensor.nbytes for tensor in engine._master_tensors())
    return memory


@pytest.mark.parametrize(
    ("precision", "zero_stage", "kept"), [("fp32", 0, []), ("fp32", 2, []), ("bf16", 1, []), ("bf16", 2, ["router"])]
)
def test_what_stays_is_what_is_held(
    precision: Any, zero_stage: Any, kept: list[str], world: World, lion: str, tag_encoder: str
) -> None:
    loop = LoopConfig(steps=1, batch_size=2, precision=precision, zero_stage=zero_stage)
    task = stage_task(world, lion, tag_encoder, loop=loop, fp32_groups=kept)
    engine = Engine(task.build(), task.group_of, task.groups, loop, OPTIMIZER, current(), 1)
    state, host = state_bytes(task.outline(), loop, workers=1)
    assert not host
    for name, size in held(engine).items():
        # ZeRO pads each group to whole shares; nothing else may differ.
        assert state[name] == pytest.approx(size, rel=0.002), name
    data = task.data()
    batch = data.collate([data.load(draw) for draw in data.validation[:2]])
    engine.backward(task.forward(engine.module, batch).loss)
    if zero_stage == 0:
        gradients = [value.grad for value in engine.trainable.values() if value.grad is not None]
        assert state["gradients"] == sum(gradient.nbytes for gradient in gradients)


def test_activations_counted_on_shapes_are_those_of_a_real_pass(world: World, lion: str, tag_encoder: str) -> None:
    task = stage_task(world, lion, tag_encoder, loop=LoopConfig(steps=1, batch_size=4))
    real, outline, data = task.build(), task.outline(), task.data()
    batch = data.collate([data.load(draw) for draw in data.validation[:4]])
    shapes = Batch({name: value.to("meta") for name, value in batch.tensors.items()}, batch.weight, batch.ids)
    counted = peak_bytes(outline, lambda: task.forward(outline, shapes).loss)
    assert counted == pytest.approx(peak_bytes(real, lambda: task.forward(real, batch).loss), rel=0.1)
    counted = peak_bytes(outline, lambda: task.longest(outline, 4))
    assert peak_bytes(outline, lambda: task.longest(outline, 8)) == pytest.approx(2 * counted, rel=0.1)


def test_gradient_checkpointing_and_shards_are_seen(world: World, lion: str, tag_encoder: str) -> None:
    loop = LoopConfig(steps=1, batch_size=8, precision="bf16", zero_stage=2)
    plain = stage_task(world, lion, tag_encoder, loop=loop)
    spared = stage_task(world, lion, tag_encoder, loop=loop, gradient_checkpointing=True)
    single, double = (estimate(plain, loop, LaunchConfig(workers=workers)) for workers in (1, 2))
    for name in ("gradients", "AdamW's moments", "fp32 master weights"):
        assert double.state[name] == pytest.approx(single.state[name] / 2, abs=1)
    assert double.state["trained weights in bf16"] == single.state["trained weights in bf16"]
    assert double.activations < 0.6 * single.activations
    assert estimate(spared, loop, LaunchConfig()).activations < 0.8 * single.activations
    offloaded, host = state_bytes(plain.outline(), dataclasses.replace(loop, offload=True), 1)
    assert set(host) == {"AdamW's moments", "fp32 master weights"}
    assert not set(host) & set(offloaded)


def test_what_cannot_fit_is_refused_before_anything_starts(
    world: World, lion: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    launch = LaunchConfig("local", gpu_memory=1e-4)
    config = TrainStageConfig(world.instructions, world.tagged, lion, launch=launch, out=str(tmp_path))
    with pytest.raises(UserError, match=r"needs 0\.\d+ GiB on each GPU .* raise loop\.zero_stage"):
        train_stage(config)
    assert not list(tmp_path.rglob("checkpoints"))
    memory = MemoryEstimate({"weights": GIB}, activations=GIB)
    with caplog.at_level(logging.WARNING):
        memory.require(3 * GIB)
        assert "run out of memory" not in caplog.text
        memory.require(2 * GIB)
    assert "may run out of memory" in caplog.text
