"""Data of a training: waiting time, tags from the table or from RAM during training, padding, cached ViT features."""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from models.lion import LionConfig
from models.lion.aggregator import intermediate_features
from pipelines.precompute.config import TaggerConfig
from pipelines.precompute.ram import RamTagger
from pipelines.sources.images import load_image
from pipelines.training.callbacks import Callback, Step
from pipelines.training.config import LoopConfig, OptimizerConfig, TrainStageConfig
from pipelines.training.context import Context, current
from pipelines.training.data import Loader
from pipelines.training.loop import train
from pipelines.training.order import Draw, SampleOrder
from pipelines.training.stage import StageTask
from pipelines.training.stage_data import StageData
from tests.benchmarks.figures import Figure, Settings, clock, cpu_seconds, in_turns, seconds
from tests.benchmarks.material import Tables, photographs, save_tables
from tests.pipelines.precompute.worlds import save_tiny_ram

BATCH = 16
# LION with Flan-T5-XL: visual positions of the encoder per image, and the levels of the ViT that other parts read.
VISUAL_TOKENS, VIT_TOKENS, VIT_WIDTH, VIT_LEVELS, VIT_PARAMETERS = 289, 257, 1408, 3, 986e6


def task_of(tables: Tables, steps: int = 1) -> StageTask:
    """Return the configuration of stage 3, with both levels."""
    settings = TrainStageConfig(
        "", "", "", stage=3, loop=LoopConfig(steps=steps, batch_size=BATCH, checkpoint_every=10**9),
        optimizer=OptimizerConfig(learning_rate=1e-4), validation_fraction=0.0,
    )  # fmt: skip
    return StageTask(settings, tables.instructions, tables.tagged, tables.lion, None, ())


class Waited(Callback):
    """Records the seconds of each step and its waiting time."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def step(self, step: Step) -> None:
        """Store the step's record."""
        self.steps.append(step)


def waiting(task: StageTask) -> tuple[float, float]:
    """Return the seconds of the steps without and with waiting, after the first few."""
    waited = Waited()
    with tempfile.TemporaryDirectory() as folder:
        train(task, task.settings.loop, task.settings.optimizer, current(), folder, "benchmark", [waited])
    steps = waited.steps[4:]  # nothing is prefetched for the first steps
    whole = sum(step.seconds for step in steps)
    return whole - sum(step.waited for step in steps), whole


def measure(settings: Settings) -> Iterator[Figure]:
    """Measure LION tiny on photographs."""
    torch.set_num_threads(1)
    pictures = photographs(settings.work / "images", settings.choose(96, 48))
    tables = save_tables(settings.work, pictures, samples=settings.choose(2000, 800))
    rounds = settings.choose(3, 1)
    turns = [waiting(task_of(tables, settings.choose(20, 10))) for _ in range(rounds)]
    yield Figure(
        "data_wait", "a step's seconds without waiting for data (LION tiny, photographs of 640 px)", "with it",
        [computing for computing, _ in turns], [whole for _, whole in turns], "s", "wall time", rate=True, goal=0.98,
        note="the share of a step that is not waiting; on a CPU, decoding and computing share the cores",
    )  # fmt: skip
    yield from tags(settings, tables, rounds)
    yield from padding(tables, settings.choose(12, 4))
    yield from features(settings, tables, pictures, rounds)


def tags(settings: Settings, tables: Tables, rounds: int) -> Iterator[Figure]:
    """Measure tags from the table and from a RAM as tiny as the LION."""
    task = task_of(tables)
    data, model = task.data(), task.build()
    tagger = RamTagger(TaggerConfig(path=str(save_tiny_ram(settings.work / "ram")), batch_size=BATCH))
    tagger.prepare()
    tagger.setup("cuda" if torch.cuda.is_available() else "cpu", 1, "fp32")
    draws = SampleOrder(data.pools, data.ratios, BATCH, 0).batch(0)
    side = tagger.image_size or 0

    def step(on_the_fly: bool) -> None:
        samples = [data.load(draw) for draw in draws]
        if on_the_fly:
            pixels = np.stack([np.asarray(sample.image.resize((side, side))) for sample in samples])
            tags = tagger.tag([sample.sample_id for sample in samples], pixels)
            samples = [dataclasses.replace(sample, tags=row) for sample, row in zip(samples, tags, strict=True)]
        batch = data.collate(samples)
        model.zero_grad()
        model(**batch.tensors).loss.backward()

    step(True)
    turns = in_turns(
        rounds + 1, {"table": lambda: seconds(lambda: step(False)), "ram": lambda: seconds(lambda: step(True))}
    )
    yield Figure(
        "tags", "a training step of 16 with tags from the table", "with RAM (tiny) run on the batch",
        turns["table"], turns["ram"], "s", clock(), goal=1.0,
        note="at full size RAM adds 0.32 TFLOP to a sample's 2.7 (LION XL), a ratio of 1.12 in every epoch",
    )  # fmt: skip


def padding(tables: Tables, steps: int) -> Iterator[Figure]:
    """Count the positions in T5's encoder for a batch of 64 in micro-batches of 8, with LION XL."""
    data = task_of(tables).data()
    whole, pieces = 64, 8
    order = SampleOrder(data.pools, data.ratios, whole, 0)
    lone = Context(0, 1, torch.device("cpu"))
    ours = []
    texts: Any = Texts(data)
    for share in Loader(texts, order, lone, pieces, 10**9, 1, 1).steps(0, steps):
        ours.append(float(sum(batch.tokens for batch in share.micro_batches)))
    naive = []
    for step in range(steps):
        lengths = [texts.load(draw) for draw in order.batch(step)]
        size = whole // pieces
        parts = [lengths[first : first + size] for first in range(0, whole, size)]
        naive.append(float(sum(Texts.positions(part) for part in parts)))
    yield Figure(
        "padding", "positions that the encoder computes for 64 samples in micro-batches of 8 of similar length",
        "micro-batches in the order of the samples", ours, naive, "positions", "count", goal=1.0,
        note="0 to 24 tags in the prompt, 289 visual tokens; each step has the same samples in both",
    )  # fmt: skip


class Texts:
    """Samples of which only the prompt lengths are read, not the images."""

    def __init__(self, data: StageData) -> None:
        self._data = data
        self.pools, self.ratios, self.validation = data.pools, data.ratios, data.validation
        self.length = data.length

    def load(self, draw: Draw) -> int:
        """Return the number of tokens of a prompt, estimated as four letters each, up to the limit."""
        return min(128, self._data.length(draw) // 4)

    def collate(self, lengths: Sequence[int]) -> "Positions":
        """Return the cost of a batch."""
        return Positions(self.positions(lengths))

    @staticmethod
    def positions(lengths: Sequence[int]) -> int:
        """Return the number of positions of a batch padded to its longest sample."""
        return len(lengths) * (VISUAL_TOKENS + max(lengths))


@dataclasses.dataclass(frozen=True)
class Positions:
    """The cost of a batch in place of its content."""

    tokens: int


def features(settings: Settings, tables: Tables, pictures: Sequence[Path], rounds: int) -> Iterator[Figure]:
    """Measure frozen ViT features from Parquet instead of pixels with LION tiny; estimate XL's ViT-g."""
    task = task_of(tables)
    data, model = task.data(), task.build()
    batch = data.collate([data.load(draw) for draw in SampleOrder(data.pools, data.ratios, BATCH, 0).batch(0)])
    pixels, config = batch.tensors["pixel_values"], LionConfig.from_pretrained(tables.lion)
    levels = list(config.aggregator_levels)

    def step() -> None:
        model.zero_grad()
        model(**batch.tensors).loss.backward()

    def vit_alone() -> None:
        with torch.no_grad():
            intermediate_features(model.vision_model, pixels, levels)

    step()
    vit = in_turns(rounds + 1, {"step": lambda: seconds(step), "vit": lambda: seconds(vit_alone)})
    rest = [whole - part for whole, part in zip(vit["step"], vit["vit"], strict=True)]
    assert min(rest) > 0
    yield Figure(
        "vit_cached_tiny", "a training step as it is, LION tiny", "one that has the ViT's features",
        vit["step"], rest, "s", clock(),
        note="without reading; for XL, the ViT takes 0.51 of a sample's 2.7 TFLOP, a ratio of 0.81",
    )  # fmt: skip
    count = settings.choose(16, 6)
    stored = np.random.default_rng(0).normal(size=(count, VIT_LEVELS * VIT_TOKENS * VIT_WIDTH)).astype(np.float16)
    path = settings.work / "features.parquet"
    column = pa.FixedSizeListArray.from_arrays(pa.array(stored.ravel().view(np.uint8)), stored.shape[1] * 2)
    pq.write_table(pa.table({"features": column}), path, row_group_size=1, compression="none", use_dictionary=False)
    order = np.random.default_rng(1).permutation(count)

    def read() -> None:
        file = pq.ParquetFile(path, memory_map=True)
        for row in order:
            features = file.read_row_group(int(row))["features"].chunk(0).flatten()
            torch.from_numpy(features.to_numpy().view(np.float16).copy())

    def decode() -> None:
        for picture in pictures[:count]:
            data._processor.get()(images=[load_image(str(picture))])

    turns = in_turns(rounds + 1, {"read": lambda: 1000 * cpu_seconds(read) / count,
                                  "decode": lambda: 1000 * cpu_seconds(decode) / count})  # fmt: skip
    size, jpeg = stored.nbytes / count, sum(p.stat().st_size for p in pictures[:count]) / count
    yield Figure(
        "vit_cached_reading", f"a JPEG of {jpeg / 1e6:.2f} MB to pixels, as it is",
        f"three levels of ViT-g from Parquet, {size / 1e6:.1f} MB an image", turns["decode"], turns["read"],
        "ms/image", "CPU time",
        note="the pages are in memory; a disk or an object store would deliver them anew in every epoch",
    )  # fmt: skip
