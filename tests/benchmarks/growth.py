"""Growth of precompute, training start and evaluation with their rows, at 1, 10 and 100 times a base size.

Each runs in a separate process. Linear time: the time per row between 10 and 100 times, compared with the time per row
between 1 and 10 times. Flat memory: the peak at 100 times (10 in a quick run), compared with the peak at 1.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.tables import INSTRUCTIONS, PREDICTIONS, TAGGED, to_table
from tests.benchmarks import precompute_growth
from tests.benchmarks.figures import Figure, Settings
from tests.benchmarks.instructions_growth import watched
from tests.benchmarks.runner import ROOT, environment

_A_FILE = 10_000


def precompute(work: Path, rows: int) -> tuple[float, ...]:
    """Run precompute on one image; return seconds and the peaks of driver and largest worker in MiB."""
    row = precompute_growth.measure(work, rows, shard_rows=128)
    assert row["rows"] == rows, row
    return row["seconds"], row["driver peak MiB"], row["largest worker peak MiB"]


def _write(folder: Path, rows: int, row: Callable[[int], dict[str, object]], schema: pa.Schema) -> None:
    folder.mkdir(parents=True)
    for first in range(0, rows, _A_FILE):
        part = [row(number) for number in range(first, min(first + _A_FILE, rows))]
        pq.write_table(to_table(part, schema), folder / f"part-{first:08d}.parquet")


def training_start(work: Path, rows: int) -> tuple[float, ...]:
    """Open the tables, mix and order the first batches; return CPU seconds and the added memory in MiB."""
    tagged, samples = work / f"tagged-{rows}", work / f"samples-{rows}"
    tags = [{"tag": "dog", "score": 0.9}, {"tag": "cat", "score": 0.8}]
    _write(tagged, rows // 4, lambda n: {"image_id": f"image-{n}", "uri": f"{n}.jpg", "width": 1, "height": 1,
           "source": "x", "tags": tags}, TAGGED)  # fmt: skip
    _write(samples, rows, lambda n: {"sample_id": f"vqa:{n}", "image_id": f"image-{n % (rows // 4)}", "task": "vqa",
           "level": ("image", "region")[n % 2], "instruction": f"What is on picture {n}?", "answers": ["a dog"]},
           INSTRUCTIONS)  # fmt: skip
    command = [sys.executable, "-m", "tests.benchmarks.growth", str(tagged), str(samples)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), check=True, stdout=subprocess.PIPE, text=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return result["seconds"], result["peak"]


def start(tagged: str, samples: str) -> None:
    """Run `training_start` in this process."""
    import psutil

    from pipelines.training.config import TrainStageConfig
    from pipelines.training.order import SampleOrder
    from pipelines.training.stage_data import StageData

    process = psutil.Process()
    before, begun = process.memory_full_info().uss, time.process_time()
    data = StageData(samples, tagged, None, TrainStageConfig("", "", "", stage=3))  # type: ignore[arg-type]
    order = SampleOrder(data.pools, data.ratios, 64, 0)
    lengths = [data.length(draw) for step in range(4) for draw in order.batch(step)]
    assert len(lengths) == 256
    seconds = time.process_time() - begun
    # Pages of memory-mapped tables are shared and can be released, so only private memory is counted.
    print(json.dumps({"seconds": seconds, "peak": (process.memory_full_info().uss - before) / 2**20}))


def evaluation(work: Path, rows: int) -> tuple[float, ...]:
    """Score existing answers; return seconds and the peak of the process in MiB."""
    row = {"task": "vqa", "prediction": "a dog", "references": ["dog"] * 9 + ["a cat"]}
    _write(work / f"predictions-{rows}", rows, lambda n: {"sample_id": f"vqa:{n}", "image_id": f"image-{n}", **row},
           PREDICTIONS)  # fmt: skip
    options = ["--predictions", str(work / f"predictions-{rows}"), "--benchmark", "vqa", "--out", str(work / "scored")]
    seconds, peak, line = watched([sys.executable, "-m", "jobs.evaluate", *options])
    assert line["rows"] == rows, line
    return seconds, peak


def measure(settings: Settings) -> Iterator[Figure]:
    """Measure all three, each with its base size."""
    whole = (1, 10) if settings.quick else (1, 10, 100)
    parts: Sequence[tuple[str, Callable[[Path, int], tuple[float, ...]], int, Mapping[str, str]]] = (
        ("training_start", training_start, settings.choose(5000, 2000),
         {"memory": "own memory of a worker when it starts"}),
        ("evaluation", evaluation, settings.choose(1000, 500), {"memory": "process of jobs.evaluate"}),
        ("precompute", precompute, settings.choose(300, 200),
         {"memory": "driver of jobs.precompute", "worker_memory": "largest worker of jobs.precompute"}),
    )  # fmt: skip
    for name, run, base, what in parts:
        work = settings.work / name
        work.mkdir()
        measurements = [run(work, times * base) for times in whole]
        seconds = [item[0] for item in measurements]
        clock = "CPU time" if name == "training_start" else "wall time"
        if len(measurements) == 3:
            later = 1e6 * (seconds[2] - seconds[1]) / (90 * base)
            earlier = 1e6 * max(seconds[1] - seconds[0], 1e-9) / (9 * base)
            yield Figure(f"{name}_time", f"{name}: each row between 10 and 100 times {base:,}",
                         "between once and 10 times", [max(later, 1e-9)], [earlier], "µs/row",
                         clock, goal=0.9)  # type: ignore[arg-type]  # fmt: skip
        for column, (figure, process) in enumerate(what.items(), 1):
            yield Figure(f"{name}_{figure}", f"{process} at {whole[-1]} times {base:,} rows", f"at {base:,} rows",
                         [max(measurements[-1][column], 0.1)], [max(measurements[0][column], 0.1)], "MiB", "memory",
                         goal=0.9)  # fmt: skip


if __name__ == "__main__":
    start(sys.argv[1], sys.argv[2])
