"""Images/s of the whole precompute pipeline, compared with model and decoder alone and with PyTorch's DataLoader.

It is measured with a tagger that is slower than decoding, and with one that costs nothing. All read JPEG files of 640
pixels for a tagger of 384. The rate of a pipeline comes from two runs, with few and with many shards: the time of the
additional shards does not contain the start of actors, nor images that are decoded during the start. Start-up is a
separate figure.
"""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from models.tags import ImageTags, tags_to_rows
from pipelines.core.runtime import RayConfig, live_nodes, ray_session
from pipelines.core.shards import ShardIndex
from pipelines.precompute import PrecomputeConfig, SourceConfig, TaggerConfig, shards
from pipelines.precompute.pipeline import run_shards
from pipelines.precompute.plan import make_plan
from pipelines.precompute.ram import RamTagger
from pipelines.precompute.taggers import Tagger
from pipelines.sources.records import ImageRecord
from tests.benchmarks.decoding import bare
from tests.benchmarks.figures import Figure, NotMeasured, Settings, in_turns
from tests.benchmarks.material import photographs
from tests.benchmarks.runner import ROOT, environment

SIDE = 384
CORES = len(os.sched_getaffinity(0))
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def save_tagger(folder: Path, width: int, depths: tuple[int, ...], patch: int, tags: int) -> Path:
    """Save a RAM with random weights for 384 pixels, whose sizes set its speed."""
    from models.ram import RamConfig, RamForImageTagging, RamProcessor

    torch.manual_seed(0)
    swin = {"image_size": SIDE, "patch_size": patch, "embed_dim": width, "depths": depths, "window_size": 12,
            "num_heads": tuple(2 ** (stage + 1) for stage in range(len(depths)))}  # fmt: skip
    RamForImageTagging(RamConfig.preset("tiny", swin=swin, n_tags=tags)).save_pretrained(folder)
    RamProcessor([f"tag {n}" for n in range(tags)], image_size=SIDE).save_pretrained(folder)
    return folder


class InstantTagger(Tagger):
    """A tagger that takes pixels and answers immediately, so that only reading, decoding and writing remain."""

    image_size = SIDE

    def prepare(self) -> None:
        """Do nothing."""

    def tag(self, image_ids: Sequence[str], pixels: np.ndarray | None) -> list[ImageTags]:
        """Return the same tags for every image."""
        assert pixels is not None
        assert len(pixels) == len(image_ids)
        return [[("tag", 0.5)]] * len(image_ids)


class Work:
    """One tagger on some photographs, run in each of the compared ways.

    Args:
        folder: folder for the files.
        config: configuration of the tagger; without a path, `InstantTagger`.
        count: number of photographs.
        shard_rows: photographs per shard and per batch of the DataLoader.
    """

    def __init__(self, folder: Path, config: TaggerConfig, count: int, shard_rows: int) -> None:
        self.paths = photographs(folder / "images", count)
        self.folder = folder
        self.config = PrecomputeConfig(source=SourceConfig(images="-"), tagger=config, shard_rows=shard_rows)
        kind = RamTagger if config.path else InstantTagger
        self.tagger, self.loaded = kind(config), kind(config)
        self.tagger.prepare()
        self.loaded.prepare()
        self.loaded.setup(DEVICE, CORES, "fp32")
        records = (ImageRecord(path.name, str(path), None, None, None, "benchmark", ()) for path in self.paths)
        self.index: ShardIndex = shards.cut_source(records, str(folder), shard_rows)
        self.startup: list[float] = []

    def model(self, batch: int, count: int) -> float:
        """Return images/s of the model alone, on pixels in memory and all cores."""
        pixels = np.random.default_rng(0).integers(0, 255, (count, SIDE, SIDE, 3), dtype=np.uint8)
        begun = time.perf_counter()
        for first in range(0, count, batch):
            self.loaded.tag([""] * len(pixels[first : first + batch]), pixels[first : first + batch])
        return count / (time.perf_counter() - begun)

    def decoder(self, count: int) -> float:
        """Return images/s of reading, decoding and resizing alone, with one thread per core."""
        begun = time.perf_counter()
        with ThreadPoolExecutor(CORES) as pool:
            list(pool.map(partial(bare, side=SIDE), self.paths[:count]))
        return count / (time.perf_counter() - begun)

    def data_loader(self, workers: int, count: int) -> float:
        """Return images/s of a plain loop with PyTorch's DataLoader, without the start of its workers."""
        torch.set_num_threads(CORES)
        loader = torch.utils.data.DataLoader(
            Photographs(self.paths[:count]),
            batch_size=self.index.shard_rows,
            num_workers=workers,
            collate_fn=list,
            prefetch_factor=4 if workers else None,
        )
        begun = 0.0
        for number, batch in enumerate(loader):
            tags_of_batch = self.loaded.tag([name for name, _ in batch], np.stack([pixels for _, pixels in batch]))
            rows = [{"image_id": name, "tags": tags_to_rows(tags)}
                    for (name, _), tags in zip(batch, tags_of_batch, strict=True)]  # fmt: skip
            pq.write_table(pa.Table.from_pylist(rows), self.folder / f"loop-{number}.parquet", compression="zstd")
            begun = begun or time.perf_counter()
        return (count - self.index.shard_rows) / (time.perf_counter() - begun)

    def pipeline(self, few: int) -> float:
        """Return images/s of the pipeline with its default plan, after its first `few` shards."""
        first, whole = self._done(range(few))[-1], self._done(range(self.index.shards))[-1]
        if whole <= first:
            raise TooBusy
        rate = (self.index.rows - few * self.index.shard_rows) / (whole - first)
        self.startup.append(first - few * self.index.shard_rows / rate)
        return rate

    def taggers(self, actors: int) -> float:
        """Return images/s of `actors` taggers with one core each, from a line through the end times of the shards."""
        done = self._done(range(self.index.shards), actors=actors, cpus=1.0)
        return self.index.shard_rows / float(np.polyfit(range(len(done)), done, 1)[0])

    def _done(self, missing: range, actors: int | None = None, cpus: float | None = None) -> list[float]:
        """Return the seconds from the start of a run to the end of each of its shards."""
        config = dataclasses.replace(
            self.config, tagger=dataclasses.replace(self.config.tagger, actors=actors, cpus=cpus)
        )
        plan = make_plan(config.tagger, None, live_nodes())
        done, begun = [], time.perf_counter()
        for _ in run_shards(missing, str(self.folder), self.index, config, self.tagger, plan, "fp32", {}):
            done.append(time.perf_counter() - begun)
        assert len(done) == len(missing)
        return done


class TooBusy(Exception):
    """More work took less time, because other processes disturbed the machine."""


class Photographs(torch.utils.data.Dataset[tuple[str, np.ndarray]]):
    """Photographs as a dataset for PyTorch's DataLoader."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, np.ndarray]:
        return self.paths[index].name, bare(self.paths[index], SIDE)


def bare_start(model: Path) -> float:
    """Return the seconds until a new process has loaded the tagger."""
    script = f"from models.ram import RamForImageTagging as R; R.from_pretrained({str(model)!r})"
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment(), check=True)
    return time.perf_counter() - begun


def measure(settings: Settings) -> Iterator[Figure | NotMeasured]:
    """Measure both taggers in one Ray session."""
    slow = save_tagger(settings.work / "slow-ram", 64, (2, 2, 6), 8, 1000)
    with ray_session(RayConfig(address="local")):
        for name, part in (
            ("model_bound", lambda: model_bound(settings, slow)),
            ("two_workers", lambda: two_workers(settings, slow)),
            ("decoder_bound", lambda: decoder_bound(settings)),
        ):
            try:
                yield from part()
            except TooBusy:
                yield NotMeasured(name, "more work took less time: other processes disturbed the machine; run it again")


def model_bound(settings: Settings, model: Path) -> Iterator[Figure]:
    """Measure with the tagger as the bottleneck."""
    work = Work(settings.work / "model-bound", TaggerConfig(path=str(model)), settings.choose(384, 128), 32)
    count = settings.choose(64, 32)
    batch = max((1, 4, 16), key=lambda size: work.model(size, 16))
    contenders: dict[str, Callable[[], float]] = {
        "model": lambda: work.model(batch, count),
        "loader": lambda: work.data_loader(CORES, count=192),
        "pipeline": lambda: work.pipeline(few=2),
    }
    turns = in_turns(settings.choose(3, 1), contenders)
    rate = {"unit": "images/s", "clock": "wall time", "rate": True}
    yield Figure("over_model", "whole pipeline, limited by the tagger",
                 f"the bare model on all cores, batch {batch}", turns["pipeline"], turns["model"], goal=0.95,
                 note="on a CPU, decoding shares the cores, which the bare model has alone",
                 **rate)  # type: ignore[arg-type]  # fmt: skip
    yield Figure("over_loader", "whole pipeline, limited by the tagger",
                 f"a PyTorch DataLoader loop, {CORES} workers", turns["pipeline"], turns["loader"], goal=1.0,
                 **rate)  # type: ignore[arg-type]  # fmt: skip
    started = [bare_start(model) for _ in work.startup]
    yield Figure("startup", "start-up seconds of a run on a running Ray",
                 "a fresh process with the model in memory", work.startup, started, "s",
                 "wall time")  # fmt: skip


def two_workers(settings: Settings, model: Path) -> Iterator[Figure | NotMeasured]:
    """Measure one and two taggers with one core each."""
    if CORES < 2:
        yield NotMeasured("two_workers", "one core")
        return
    work = Work(settings.work / "two-workers", TaggerConfig(path=str(model)), settings.choose(192, 96), 32)
    turns = in_turns(settings.choose(3, 1), {"one": lambda: work.taggers(1), "two": lambda: work.taggers(2)})
    doubled = [2 * value for value in turns["one"]]
    yield Figure("two_workers", "two taggers of a core each", "twice one tagger's rate", turns["two"], doubled,
                 "images/s", "wall time", rate=True, goal=0.9,
                 note="on two cores, decoding shares both with two taggers; a single one has a core alone")  # fmt: skip


def decoder_bound(settings: Settings) -> Iterator[Figure]:
    """Measure with decoding as the bottleneck, in shards of the default size."""
    shard_rows = PrecomputeConfig(source=SourceConfig(images="-")).shard_rows
    work = Work(settings.work / "decoder-bound", TaggerConfig(), settings.choose(40, 24) * shard_rows, shard_rows)
    some = 12 * shard_rows
    contenders: dict[str, Callable[[], float]] = {
        "decoder": lambda: work.decoder(some),
        "loader": lambda: work.data_loader(CORES, some),
        "lone_loader": lambda: work.data_loader(0, some),
        "pipeline": lambda: work.pipeline(
            few=16
        ),  # with fewer shards, everything is decoded while the taggers still start
    }
    turns = in_turns(settings.choose(3, 1), contenders)
    rate = {"unit": "images/s", "clock": "wall time", "rate": True}
    yield Figure("over_decoder", "whole pipeline, limited by decoding",
                 f"reading, decoding and resizing alone, {CORES} threads", turns["pipeline"], turns["decoder"],
                 goal=0.9, **rate)  # type: ignore[arg-type]  # fmt: skip
    yield Figure("decoder_bound_over_loader", "whole pipeline, limited by decoding",
                 f"a PyTorch DataLoader loop, {CORES} workers", turns["pipeline"], turns["loader"], goal=1.0,
                 **rate)  # type: ignore[arg-type]  # fmt: skip
    yield Figure("decoder_bound_over_lone_loader", "whole pipeline, limited by decoding",
                 "a PyTorch DataLoader loop in one process", turns["pipeline"], turns["lone_loader"], goal=1.0,
                 **rate)  # type: ignore[arg-type]  # fmt: skip
