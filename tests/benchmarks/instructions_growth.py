"""Growth of a build of instructions with its annotations: time, and the memory of the driver.

`python -m jobs.instructions` builds referring expressions (JSON lines) about images of a tagged table in a separate
process. Its resident memory is sampled, without Ray's workers, which are other processes.
"""

import contextlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from pipelines.core.tables import TAGGED, to_table
from tests.benchmarks.figures import Figure, Settings
from tests.benchmarks.runner import ROOT

_NOUNS = ("man", "dog", "cup", "red car", "woman in white", "zebra on the left", "pizza slice", "boy with a bat")


def write_tagged(folder: Path, images: int) -> None:
    """Write a tagged table without images, which are not read here."""
    folder.mkdir(parents=True)
    for first in range(0, images, 10_000):
        rows = [
            {"image_id": str(number), "uri": f"/images/{number:012d}.jpg", "width": 640, "height": 480,
             "source": "synthetic", "tags": [{"tag": "dog", "score": 0.9}, {"tag": "cat", "score": 0.4}]}
            for number in range(first, min(first + 10_000, images))
        ]  # fmt: skip
        pq.write_table(to_table(rows, TAGGED), folder / f"part-{first:08d}.parquet")


def lines(rows: int, images: int) -> Iterator[str]:
    """Write expressions in RefCOCO's form as JSON lines; one box of a thousand is outside its image."""
    rng = random.Random(0)
    for number in range(rows):
        x, y = rng.uniform(0, 400), rng.uniform(0, 300)
        box = [x, y, rng.uniform(10, 200), rng.uniform(10, 150)] if number % 1000 else [600, 400, 300, 300]
        row = {"dataset": "synthetic", "split": "train", "index": number, "image_id": number % images,
               "ann_id": number, "expression": rng.choice(_NOUNS), "bbox_xywh": box}  # fmt: skip
        yield json.dumps(row) + "\n"


def build(work: Path, rows: int, images: int) -> tuple[float, float]:
    """Run one build with `rows` annotations.

    Returns:
        Seconds, and the driver's peak memory in MiB.
    """
    annotations = work / f"refs-{rows}.jsonl"
    with open(annotations, "w") as stream:
        stream.writelines(lines(rows, images))
    entry = {"name": "refs", "kind": "refcoco", "annotations": str(annotations), "tasks": ["rec"], "split": "train"}
    config = work / f"config-{rows}.json"
    config.write_text(json.dumps({"tagged": str(work / "tagged"), "sets": [entry]}))
    options = ["--config", str(config), "--out", str(work / f"out-{rows}"), "--ray.address", "local"]
    seconds, peak, line = watched([sys.executable, "-m", "jobs.instructions", *options])
    assert line["rows"] + line["quarantined"] == rows, line
    return seconds, peak


def watched(command: Sequence[str]) -> tuple[float, float, dict[str, Any]]:
    """Run a verb in a separate process and sample its resident memory, without that of its children.

    Returns:
        Seconds, peak in MiB, and the last line of its output.
    """
    begun = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver:
        process, peak = psutil.Process(driver.pid), 0
        while driver.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                peak = max(peak, process.memory_info().rss)
            time.sleep(0.1)
        seconds = time.monotonic() - begun
        assert driver.stdout is not None
        printed = driver.stdout.read()
    if driver.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {driver.returncode}")
    return seconds, peak / 2**20, json.loads(printed.splitlines()[-1])


def measure(settings: Settings) -> Iterator[Figure]:
    """Measure 1, 10 and 100 times the base size."""
    base = settings.choose(1000, 300)
    images = 50 * base
    write_tagged(settings.work / "tagged", images)
    measurements = {
        times: build(settings.work, times * base, images) for times in (1, 10, *([100] if not settings.quick else []))
    }
    most = max(measurements)
    # Both contain the constant cost of Ray's start and the tables.
    (small, low), (middle, _), (large, high) = measurements[1], measurements[10], measurements[most]
    if most > 10:
        yield Figure(
            "time", f"seconds for each of the rows between 10 and {most} times {base:,}", "between once and 10 times",
            [1e6 * (large - middle) / (90 * base)], [1e6 * max(middle - small, 1e-3) / (9 * base)], "µs/row",
            "wall time", goal=0.9,
        )  # fmt: skip
    yield Figure("driver_memory", f"jobs.instructions' driver at {most} times {base:,} rows", f"at {base:,} rows",
                 [high], [low], "MiB", "memory", goal=0.9)  # fmt: skip
