"""Overhead of the training loop, compared with a bare PyTorch loop.

The same LION, optimizer and batches in memory, alternately in one process: with the loop of `jobs.train_stage` (order,
prefetching, DeepSpeed, collectives, records, progress), and with as few lines as possible.
"""

import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from models.lion import LionConfig, LionForConditionalGeneration
from pipelines.training.callbacks import Callback, Progress, Step
from pipelines.training.config import LoopConfig, OptimizerConfig, TrainStageConfig
from pipelines.training.context import current
from pipelines.training.data import Batch
from pipelines.training.engine import parameter_groups
from pipelines.training.loop import train
from pipelines.training.order import Draw
from pipelines.training.stage import StageTask
from tests.benchmarks.figures import Figure, Settings, clock, in_turns

OPTIMIZER = OptimizerConfig(learning_rate=1e-4)
TEXT, ANSWER, KEPT = 64, 16, 4


class InMemory:
    """A few prepared batches; samples are only counted."""

    def __init__(self, config: LionConfig, size: int) -> None:
        generator = torch.Generator().manual_seed(0)

        def tokens(length: int, vocabulary: int) -> Tensor:
            return torch.randint(3, min(vocabulary, 400), (size, length), generator=generator)

        self.pools, self.ratios, self.validation = (size * 1000,), None, list[Draw]()
        self.batches = []
        for _ in range(KEPT):
            prompt = tokens(TEXT, config.text_config.vocab_size)
            prompt[prompt == config.soft_prompt_token_id] += 1
            prompt[:, 0] = config.soft_prompt_token_id
            question = tokens(TEXT // 2, config.qformer_config.vocab_size)
            tensors = {
                "pixel_values": torch.randn(size, 3, config.image_size, config.image_size, generator=generator),
                "input_ids": prompt,
                "attention_mask": torch.ones_like(prompt),
                "qformer_input_ids": question,
                "qformer_attention_mask": torch.ones_like(question),
                "levels": torch.arange(size) % 2,
                "labels": tokens(ANSWER, config.text_config.vocab_size),
            }
            self.batches.append(Batch(tensors, float(size * ANSWER), tuple(map(str, range(size))), size * TEXT))

    def load(self, draw: Draw) -> Draw:
        """Do nothing."""
        return draw

    def collate(self, samples: Sequence[Draw]) -> Batch:
        """Return one of the batches."""
        return self.batches[samples[0].index % KEPT]


@dataclasses.dataclass(frozen=True)
class InMemoryTask(StageTask):
    """The stage's task on batches in memory."""

    def data(self) -> InMemory:  # type: ignore[override]
        """Return the batches."""
        return InMemory(LionConfig.from_pretrained(self.start), self.settings.loop.batch_size)


class Clock(Callback):
    """Records the end time of each step."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now, self.times = now, list[float]()

    def step(self, step: Step) -> None:
        """Store the time."""
        self.times.append(self._now())


def bare(task: InMemoryTask, steps: int, now: Callable[[], float]) -> list[float]:
    """Train the same model with as few lines as possible."""
    data, device = task.data(), current().device
    model: nn.Module = task.build()
    model.to(device)
    groups = parameter_groups(model, task.group_of, task.groups, OPTIMIZER)
    rates = [group.pop("rate") for group in groups]
    optimizer = torch.optim.AdamW(groups, fused=device.type == "cuda" or None)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    times = []
    for step in range(steps):
        batch = data.batches[step % KEPT].to(device)
        loss = model(**batch.tensors).sample_loss.sum() / batch.weight
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, OPTIMIZER.clip_norm)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * OPTIMIZER.factor(step, steps)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        times.append(now())
    return times


def looped(task: InMemoryTask, steps: int, now: Callable[[], float]) -> list[float]:
    """Train with the project's loop and the callbacks of a job."""
    clock = Clock(now)
    with tempfile.TemporaryDirectory() as folder:
        train(task, task.settings.loop, OPTIMIZER, current(), folder, "benchmark", [Progress("benchmark"), clock])
    return clock.times


def measure(settings: Settings) -> Iterator[Figure]:
    """Measure the tiny LION on a CPU with one thread; XL's text model on a GPU."""
    torch.set_num_threads(1)
    cuda = torch.cuda.is_available()
    now = time.perf_counter if cuda else time.process_time
    steps = settings.choose(20, 8)
    start = str(settings.work / "lion")
    LionForConditionalGeneration(LionConfig.preset("base" if cuda else "tiny")).save_pretrained(start)
    loop = LoopConfig(steps=steps, batch_size=16, checkpoint_every=10**9)
    task = InMemoryTask(
        TrainStageConfig("", "", start, stage=3, loop=loop, optimizer=OPTIMIZER), "", "", start, None, ()
    )

    def median(run: Callable[..., list[float]]) -> float:
        times = run(task, steps, now)[1:]  # the first steps are warm-up
        return 1000 * statistics.median(after - before for before, after in itertools.pairwise(times))

    turns = in_turns(settings.choose(5, 2), {"loop": lambda: median(looped), "bare": lambda: median(bare)})
    yield Figure("loop", "a step of the training loop, LION tiny, batch 16, stage 3", "a bare PyTorch loop's",
                 turns["loop"], turns["bare"], "ms", clock(), goal=0.95,
                 note="the rest is DeepSpeed's bookkeeping over all parameters, which does not grow with the "
                 "batch")  # fmt: skip
