"""What the training loop costs beside a bare PyTorch loop: ``python -m tests.benchmarks.training_overhead``.

The same LION, the same optimiser, the same batches in memory, in turns in one process: once through the loop that
`jobs.train_stage` runs (order, prefetching, DeepSpeed, collectives, records, progress), once through the fewest lines
that train it. Prints steps per second of both and the loop's loss; nothing here passes or fails. On a CPU it is CPU
time that is compared, which neighbours disturb least.
"""

import argparse
import dataclasses
import itertools
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

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

OPTIMIZER = OptimizerConfig(learning_rate=1e-4)
TEXT, ANSWER, KEPT = 64, 16, 4


class InMemory:
    """A few batches, made before; samples are only counted."""

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
        """Nothing to load."""
        return draw

    def collate(self, samples: Sequence[Draw]) -> Batch:
        """One of the batches."""
        return self.batches[samples[0].index % KEPT]


@dataclasses.dataclass(frozen=True)
class InMemoryTask(StageTask):
    """The stage's task on them."""

    def data(self) -> InMemory:  # type: ignore[override]
        """The batches."""
        return InMemory(LionConfig.from_pretrained(self.start), self.settings.loop.batch_size)


class Clock(Callback):
    """When each step ended."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now, self.times = now, list[float]()

    def step(self, step: Step) -> None:
        """Looks at the clock."""
        self.times.append(self._now())


def bare(task: InMemoryTask, steps: int, now: Callable[[], float]) -> list[float]:
    """The fewest lines that train the same model."""
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
    """The project's loop, with what a job has it tell."""
    clock = Clock(now)
    with tempfile.TemporaryDirectory() as folder:
        train(task, task.settings.loop, OPTIMIZER, current(), folder, "benchmark", [Progress("benchmark"), clock])
    return clock.times


def main() -> None:
    """Measures in turns and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="tiny", help="a preset of LionConfig")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--zero_stage", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    cuda = torch.cuda.is_available()
    now = time.perf_counter if cuda else time.process_time
    loop = LoopConfig(steps=chosen.steps, batch_size=chosen.batch, checkpoint_every=10**9, zero_stage=chosen.zero_stage)
    with tempfile.TemporaryDirectory() as start:
        LionForConditionalGeneration(LionConfig.preset(chosen.size)).save_pretrained(start)
        settings = TrainStageConfig("", "", start, stage=3, loop=loop, optimizer=OPTIMIZER)
        task = InMemoryTask(settings, "", "", start, None, ())
        seconds: dict[str, list[float]] = {"bare": [], "loop": []}
        for _ in range(chosen.rounds):
            for name, run in (("bare", bare), ("loop", looped)):
                times = run(task, chosen.steps, now)[1:]  # the first steps warm up
                taken = [after - before for before, after in itertools.pairwise(times)]
                seconds[name].append(statistics.median(taken))
    # The rounds of one process differ by a tenth and more on a shared machine, always upwards: the fastest is the work.
    best = {name: min(values) for name, values in seconds.items()}
    clock = "wall time" if cuda else "CPU time"
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, 1 thread, {clock}")
    each = f"{chosen.rounds} rounds of {chosen.steps} steps each"
    print(f"LION {chosen.size}, batch {chosen.batch}, ZeRO {chosen.zero_stage}, {each}")
    for name, value in best.items():
        rounds = ", ".join(f"{1000 * one:.0f}" for one in seconds[name])
        print(f"{name}: {1 / value:.2f} steps/s ({1000 * value:.1f} ms; medians of the rounds {rounds})")
    print(f"loss of speed: {100 * (1 - best['bare'] / best['loop']):.1f} %")


if __name__ == "__main__":
    main()
