"""DeepSpeed ZeRO 1 to 3 compared with ZeRO 0: step time and memory of a tiny LION in two processes with gloo."""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from models.lion import LionConfig, LionForConditionalGeneration
from pipelines.training.config import LoopConfig, TrainStageConfig
from pipelines.training.context import current
from pipelines.training.loop import train
from pipelines.training.memory import state_bytes
from tests.benchmarks.figures import Figure, Settings
from tests.benchmarks.training_overhead import OPTIMIZER, Clock, InMemoryTask

STAGES, BATCH, WORKERS = (0, 1, 2, 3), 16, 2


def task_of(start: str, steps: int) -> InMemoryTask:
    """Build a training of stage 3 on batches in memory."""
    loop = LoopConfig(steps=steps, batch_size=BATCH, checkpoint_every=10**9)
    return InMemoryTask(
        TrainStageConfig("", "", start, stage=3, loop=loop, optimizer=OPTIMIZER), "", "", start, None, ()
    )


def two_workers(start: str, work: str, steps: int, rounds: int) -> None:
    """Run in each of the two processes: train with every ZeRO stage once per round."""
    torch.set_num_threads(1)
    context, task = current(), task_of(start, steps)
    times: dict[int, dict[str, list[float]]] = {stage: {"seconds": [], "cpu": []} for stage in STAGES}
    for number in range(rounds):
        for stage in STAGES:
            loop = dataclasses.replace(task.settings.loop, zero_stage=stage)  # type: ignore[arg-type]
            wall, cpu = Clock(time.perf_counter), Clock(time.process_time)
            folder = str(Path(work) / f"{number}-{stage}")
            train(task, loop, OPTIMIZER, context, folder, "benchmark", [wall, cpu])
            for name, clock in (("seconds", wall), ("cpu", cpu)):
                times[stage][name].append((clock.times[-1] - clock.times[1]) / (len(clock.times) - 2))
    if context.is_main:
        Path(work, "found.json").write_text(json.dumps(times))
    context.barrier()
    torch.distributed.destroy_process_group()


def state_of(stage: int, task: InMemoryTask) -> int:
    """Return the bytes that each of the two workers keeps between steps, counted from DeepSpeed's tensors."""
    loop = dataclasses.replace(task.settings.loop, zero_stage=stage)  # type: ignore[arg-type]
    state, _ = state_bytes(task.build(), loop, WORKERS)
    return sum(size for name, size in state.items() if name not in ("reduce bucket", "gathered weights"))


def measure(settings: Settings) -> Iterator[Figure]:
    """Measure the time of a step and the memory of the states."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    start = str(settings.work / "lion")
    LionForConditionalGeneration(LionConfig.preset("tiny")).save_pretrained(start)
    launch = LaunchConfig(1, 1, WORKERS, rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1")
    launch.max_restarts, launch.run_id = 0, "benchmark"
    steps, rounds = settings.choose(10, 4), settings.choose(3, 1)
    elastic_launch(launch, two_workers)(start, str(settings.work), steps, rounds)
    times: dict[str, dict[str, list[float]]] = json.loads((settings.work / "found.json").read_text())
    task = task_of(start, 1)
    for stage in STAGES[1:]:
        yield Figure(f"zero_{stage}", f"a step with ZeRO {stage}, two workers, LION tiny", "with ZeRO 0",
                     times[str(stage)]["cpu"], times["0"]["cpu"], "s", "CPU time",
                     note="gloo on one machine; ZeRO 3 gathers the weights of each layer")  # fmt: skip
        yield Figure(f"zero_{stage}_memory", f"states of a worker with ZeRO {stage}, of two", "with ZeRO 0",
                     [state_of(stage, task) / 2**20], [state_of(0, task) / 2**20], "MiB", "count",
                     note="weights, gradients and AdamW's states as pipelines.training.memory counts them; a test "
                     "compares that count with a real engine")  # fmt: skip
