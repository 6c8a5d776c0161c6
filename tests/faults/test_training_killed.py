"""A worker of Ray Train is killed in the middle: the training gives the same result as an undisturbed one (P3)."""

import dataclasses
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.core.resources import LaunchConfig
from pipelines.core.runtime import RayConfig
from pipelines.training.config import LoopConfig, OptimizerConfig, TrainTagEncoderConfig
from pipelines.training.launch import WorkerJob, launch
from pipelines.training.tag_encoder import TagEncoderTask
from tests.pipelines.training import conftest as drawn
from tests.pipelines.training.conftest import World

STEPS = 60
world, tag_encoder = drawn.world, drawn.tag_encoder  # fixtures


def make_job(world: World, start: str, folder: Path) -> WorkerJob:
    loop = LoopConfig(steps=STEPS, batch_size=8, checkpoint_every=5, zero_stage=2, trace=True, keep_checkpoints=99)
    optimizer = OptimizerConfig(learning_rate=1e-3, warmup=5)
    settings = TrainTagEncoderConfig(world.tagged, start, normalize=True, loop=loop, optimizer=optimizer)
    task = TagEncoderTask(settings, world.tagged, start, "digest")
    return WorkerJob(task, loop, optimizer, str(folder), "identity", "killed", threads=1)


def kill_in_the_middle(folder: Path, killed: list[int]) -> None:
    """Wait until some steps were done after a checkpoint, then kill the worker of rank 1."""
    trace, deadline = folder / "trace" / "rank-1.jsonl", time.monotonic() + 400
    while time.monotonic() < deadline:
        lines = trace.read_text().splitlines() if trace.exists() else []
        if len(lines) >= 8 and list(folder.glob("checkpoints/step-*/state.json")):
            killed.append(json.loads(lines[-1])["pid"])
            os.kill(killed[0], signal.SIGKILL)
            return
        time.sleep(0.02)


def seen(folder: Path, rank: int) -> dict[int, list[str]]:
    lines = [json.loads(line) for line in (folder / "trace" / f"rank-{rank}.jsonl").read_text().splitlines()]
    return {line["step"]: line["ids"] for line in lines}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{STEPS:08d}" / "weights.safetensors")


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(ray_cluster: None, world: World, tag_encoder: str, tmp_path: Path) -> None:
    config = LaunchConfig(workers=2, cpus_per_worker=1)
    broken, whole, killed = make_job(world, tag_encoder, tmp_path / "broken"), tmp_path / "whole", list[int]()
    killer = threading.Thread(target=kill_in_the_middle, args=(tmp_path / "broken", killed), daemon=True)
    killer.start()
    launch(broken, config, RayConfig())
    killer.join(5)
    assert killed, "the training ended before its worker was killed"
    launch(dataclasses.replace(broken, folder=str(whole)), dataclasses.replace(config, launcher="local"), RayConfig())
    for rank in (0, 1):
        assert seen(tmp_path / "broken", rank) == seen(whole, rank)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(tmp_path / "broken")[name], value, atol=1e-6, rtol=1e-5)
