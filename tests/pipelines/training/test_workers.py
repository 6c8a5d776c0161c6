"""Several processes: ZeRO 0-3 on two equal plain PyTorch on one, and checkpoints pass between one and two (P4, P5)."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from models.tag_encoder import TagEncoder, triplet_margin_loss
from pipelines.training.callbacks import Trace
from pipelines.training.config import LoopConfig, OptimizerConfig, TrainTagEncoderConfig
from pipelines.training.context import Context, current
from pipelines.training.engine import parameter_groups
from pipelines.training.loop import train
from pipelines.training.order import SampleOrder
from pipelines.training.tag_encoder import TagEncoderTask
from tests.pipelines.training.conftest import World

STEPS, CUT = 5, 3
# An epsilon far above rounding: AdamW divides a gradient by its size, so that mere rounding becomes a whole step.
OPTIMIZER = OptimizerConfig(
    learning_rate=1e-3, warmup=2, clip_norm=0.5, epsilon=1e-4, learning_rate_scale={"tag_encoder": 2.0}
)


def make_task(table: str, start: str) -> TagEncoderTask:
    # Nine samples a step: two workers never have the same share.
    loop = LoopConfig(steps=STEPS, batch_size=9, checkpoint_every=CUT, keep_checkpoints=9)
    settings = TrainTagEncoderConfig(table, start, normalize=True, dropout=0.0, loop=loop, optimizer=OPTIMIZER)
    return TagEncoderTask(settings, table, start, "digest")


def run(task: TagEncoderTask, folder: Path, context: Context, zero_stage: int) -> None:
    loop = dataclasses.replace(task.settings.loop, zero_stage=zero_stage, micro_batch_size=3)  # type: ignore[arg-type]
    trace = Trace(str(folder / "trace"))
    train(task, loop, OPTIMIZER, context, str(folder), "identity", [trace])
    trace.close()


def forget_after(folder: Path, step: int) -> None:
    """Remove later checkpoints, as if the training had stopped after a step's checkpoint."""
    for state in folder.glob("step-*/state.json"):
        if int(state.parent.name.removeprefix("step-")) > step:
            state.unlink()


def two_workers(table: str, start: str, root: str) -> None:
    """Run every ZeRO stage from the start, then resume the checkpoint of a single worker; each process runs this."""
    torch.set_num_threads(1)
    context, task = current(), make_task(table, start)
    for stage in (0, 1, 2, 3):
        run(task, Path(root) / f"zero-{stage}", context, stage)
    run(task, Path(root) / "from-one", context, 3)
    context.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def runs(world: World, tag_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs: `one` is of this process, the others of two processes."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    root = tmp_path_factory.mktemp("runs")
    task = make_task(world.tagged, tag_encoder)
    run(task, root / "one", current(), 0)
    run(task, root / "from-one", current(), 2)
    forget_after(root / "from-one", CUT)
    config = LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1")
    config.max_restarts, config.run_id = 0, "test"
    elastic_launch(config, two_workers)(world.tagged, tag_encoder, str(root))
    return root


def losses(folder: Path, rank: int = 0) -> list[float]:
    lines = [json.loads(line) for line in (folder / "trace" / f"rank-{rank}.jsonl").read_text().splitlines()]
    return [line["loss"] for line in {line["step"]: line for line in lines}.values()]


def ids(folder: Path, workers: int) -> list[set[str]]:
    """Return the sample ids of each global step."""
    steps: list[set[str]] = [set() for _ in range(STEPS)]
    for rank in range(workers):
        for line in (folder / "trace" / f"rank-{rank}.jsonl").read_text().splitlines():
            steps[json.loads(line)["step"]].update(json.loads(line)["ids"])
    return steps


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / f"step-{STEPS:08d}"
    return {**load_file(path / "weights.safetensors"), **load_file(path / "optimizer.safetensors")}


def plain_pytorch(task: TagEncoderTask) -> tuple[list[float], TagEncoder]:
    """Train with plain PyTorch: one process, whole batches, without the project's loop and DeepSpeed."""
    torch.manual_seed(0)
    model, data = task.build().train(), task.data()
    groups = parameter_groups(model, task.group_of, task.groups, OPTIMIZER)
    rates = [group.pop("rate") for group in groups]
    optimizer = torch.optim.AdamW(groups, lr=0.0, eps=OPTIMIZER.epsilon)
    order, seen = SampleOrder(data.pools, None, 9, 0), []
    for step in range(STEPS):
        batch = data.collate([data.load(draw) for draw in order.batch(step)])
        inputs = {name: value for name, value in batch.tensors.items() if name != "owner"}
        loss = triplet_margin_loss(*model(**inputs).chunk(3)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.clip_norm)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * OPTIMIZER.factor(step, STEPS)
        optimizer.step()
        seen.append(loss.item())
    return seen, model


@pytest.mark.parametrize("folder", ["one", "zero-0", "zero-1", "zero-2", "zero-3"])
def test_losses_and_weights_equal_plain_pytorch(folder: str, runs: Path, world: World, tag_encoder: str) -> None:
    expected, model = plain_pytorch(make_task(world.tagged, tag_encoder))
    assert losses(runs / folder) == pytest.approx(expected, abs=1e-5)
    trained = tensors(runs / folder)
    for name, value in model.named_parameters():
        torch.testing.assert_close(trained[name], value.detach(), atol=2e-5, rtol=1e-4)


def test_two_workers_see_one_workers_samples_in_every_step(runs: Path) -> None:
    single = ids(runs / "one", 1)
    assert [len(step) for step in single] == [9] * STEPS
    assert all(ids(runs / f"zero-{stage}", 2) == single for stage in range(4))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_workers_checkpoint_goes_on_with_one(stage: int, runs: Path, world: World, tag_encoder: str) -> None:
    folder = runs / f"zero-{stage}"
    whole = tensors(folder)
    forget_after(folder, CUT)
    run(make_task(world.tagged, tag_encoder), folder, current(), (stage + 1) % 4)
    for name, value in tensors(folder).items():
        torch.testing.assert_close(value, whole[name], atol=2e-5, rtol=1e-4)


def test_one_workers_checkpoint_goes_on_with_two(runs: Path) -> None:
    whole, moved = tensors(runs / "one"), tensors(runs / "from-one")
    assert len(losses(runs / "from-one", rank=1)) == STEPS - CUT
    for name, value in whole.items():
        torch.testing.assert_close(moved[name], value, atol=2e-5, rtol=1e-4)
