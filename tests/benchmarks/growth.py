"""How precompute, the start of a training, and evaluation grow with their rows: once, ten times, a hundred times.

Each runs in a process of its own. Linear time: what the rows beyond ten times take each, against those between once
and ten times. Flat memory: the most at a hundred times (ten, where quick) against the most at once.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.tables import INSTRUCTIONS, PREDICTIONS, TAGGED, to_table
from tests.benchmarks.figures import Figure, Settings
from tests.benchmarks.instructions_growth import watched
from tests.benchmarks.runner import ROOT, environment
from tests.pipelines.precompute.worlds import write_pictures, write_tags

_A_FILE = 10_000


def precompute(work: Path, rows: int) -> tuple[float, float]:
    """Small pictures, tags from a table. Seconds; the driver's peak in MiB."""
    pictures = write_pictures(work / "drawn", 50)
    folder = work / f"images-{rows}"
    folder.mkdir()
    for number in range(rows):
        (folder / f"{number:07d}.jpg").hardlink_to(pictures[number % 50])
    tags = write_tags(work / f"tags-{rows}.parquet", {f"{n:07d}.jpg": [("dog", 0.9)] for n in range(rows)})
    options = ["--source.kind", "folder", "--source.images", str(folder), "--tagger.kind", "table"]
    options += ["--tagger.path", str(tags), "--out", str(work / f"out-{rows}"), "--ray.address", "local"]
    seconds, peak, told = watched([sys.executable, "-m", "jobs.precompute", *options])
    assert told["rows"] == rows, told
    return seconds, peak


def _write(folder: Path, rows: int, row: Callable[[int], dict[str, object]], schema: pa.Schema) -> None:
    folder.mkdir(parents=True)
    for first in range(0, rows, _A_FILE):
        part = [row(number) for number in range(first, min(first + _A_FILE, rows))]
        pq.write_table(to_table(part, schema), folder / f"part-{first:08d}.parquet")


def training_start(work: Path, rows: int) -> tuple[float, float]:
    """Opening the tables, mixing, the first batches' order. CPU seconds; what it adds to the process in MiB."""
    tagged, samples = work / f"tagged-{rows}", work / f"samples-{rows}"
    tags = [{"tag": "dog", "score": 0.9}, {"tag": "cat", "score": 0.8}]
    _write(tagged, rows // 4, lambda n: {"image_id": f"image-{n}", "uri": f"{n}.jpg", "width": 1, "height": 1,
           "source": "x", "tags": tags}, TAGGED)  # fmt: skip
    _write(samples, rows, lambda n: {"sample_id": f"vqa:{n}", "image_id": f"image-{n % (rows // 4)}", "task": "vqa",
           "level": ("image", "region")[n % 2], "instruction": f"What is on picture {n}?", "answers": ["a dog"]},
           INSTRUCTIONS)  # fmt: skip
    command = [sys.executable, "-m", "tests.benchmarks.growth", str(tagged), str(samples)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], found["peak"]


def start(tagged: str, samples: str) -> None:
    """`training_start`'s own process."""
    import psutil

    from pipelines.training.config import TrainStageConfig
    from pipelines.training.order import SampleOrder
    from pipelines.training.stage import StageData

    process = psutil.Process()
    before, begun = process.memory_full_info().uss, time.process_time()
    data = StageData(samples, tagged, None, TrainStageConfig("", "", "", stage=3))  # type: ignore[arg-type]
    order = SampleOrder(data.pools, data.ratios, 64, 0)
    lengths = [data.length(draw) for step in range(4) for draw in order.batch(step)]
    assert len(lengths) == 256
    seconds = time.process_time() - begun
    # Pages of the memory-mapped tables are everybody's and can be given back; what is the process's own counts.
    print(json.dumps({"seconds": seconds, "peak": (process.memory_full_info().uss - before) / 2**20}))


def evaluation(work: Path, rows: int) -> tuple[float, float]:
    """Scoring given answers. Seconds; the process's peak in MiB."""
    row = {"task": "vqa", "prediction": "a dog", "references": ["dog"] * 9 + ["a cat"]}
    _write(work / f"predictions-{rows}", rows, lambda n: {"sample_id": f"vqa:{n}", "image_id": f"image-{n}", **row},
           PREDICTIONS)  # fmt: skip
    options = ["--predictions", str(work / f"predictions-{rows}"), "--benchmark", "vqa", "--out", str(work / "scored")]
    seconds, peak, told = watched([sys.executable, "-m", "jobs.evaluate", *options])
    assert told["rows"] == rows, told
    return seconds, peak


def measure(settings: Settings) -> Iterator[Figure]:
    """The three, each at its own size."""
    whole = (1, 10) if settings.quick else (1, 10, 100)
    parts: Sequence[tuple[str, Callable[[Path, int], tuple[float, float]], int, str]] = (
        ("training_start", training_start, settings.choose(5000, 2000), "own memory of a worker when it starts"),
        ("evaluation", evaluation, settings.choose(1000, 500), "process of jobs.evaluate"),
        ("precompute", precompute, settings.choose(300, 200), "driver of jobs.precompute"),
    )
    for name, run, base, what in parts:
        work = settings.work / name
        work.mkdir()
        found = [run(work, times * base) for times in whole]
        seconds, peaks = [one[0] for one in found], [one[1] for one in found]
        clock = "CPU time" if name == "training_start" else "wall time"
        if len(found) == 3:
            later = 1e6 * (seconds[2] - seconds[1]) / (90 * base)
            earlier = 1e6 * max(seconds[1] - seconds[0], 1e-9) / (9 * base)
            yield Figure(f"{name}_time", f"{name}: each row between 10 and 100 times {base:,}",
                         "between once and 10 times", [max(later, 1e-9)], [earlier], "µs/row",
                         clock, goal=0.9)  # type: ignore[arg-type]  # fmt: skip
        yield Figure(f"{name}_memory", f"{what} at {whole[-1]} times {base:,} rows", f"at {base:,} rows",
                     [max(peaks[-1], 0.1)], [max(peaks[0], 0.1)], "MiB", "memory", goal=0.9)  # fmt: skip


if __name__ == "__main__":
    start(sys.argv[1], sys.argv[2])
