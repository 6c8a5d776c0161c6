"""How a build of instructions grows with its annotations: time, and the memory of the driver.

    python -m tests.benchmarks.instructions_growth [--rows 100000 300000 1000000] [--images 50000] [--work DIR]

Writes referring expressions (JSON lines) about images of a tagged table and builds them by `python -m
jobs.instructions` in a process of its own, whose resident memory is sampled; Ray's workers are other processes. The
driver's memory is flat when the last two columns do not grow with the rows.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from pipelines.tables import TAGGED, to_table

ROOT = Path(__file__).resolve().parents[2]
_NOUNS = ("man", "dog", "cup", "red car", "woman in white", "zebra on the left", "pizza slice", "boy with a bat")


def write_tagged(folder: Path, images: int) -> None:
    """A tagged table without pictures: nothing here reads them."""
    folder.mkdir(parents=True)
    for first in range(0, images, 10_000):
        rows = [
            {"image_id": str(number), "uri": f"/images/{number:012d}.jpg", "width": 640, "height": 480,
             "source": "synthetic", "tags": [{"tag": "dog", "score": 0.9}, {"tag": "cat", "score": 0.4}]}
            for number in range(first, min(first + 10_000, images))
        ]  # fmt: skip
        pq.write_table(to_table(rows, TAGGED), folder / f"part-{first:08d}.parquet")


def lines(rows: int, images: int) -> Iterator[str]:
    """Expressions in the JSON-lines form of RefCOCO; one in a thousand lies outside its image."""
    chance = random.Random(0)
    for number in range(rows):
        x, y = chance.uniform(0, 400), chance.uniform(0, 300)
        box = [x, y, chance.uniform(10, 200), chance.uniform(10, 150)] if number % 1000 else [600, 400, 300, 300]
        row = {"dataset": "synthetic", "split": "train", "index": number, "image_id": number % images,
               "ann_id": number, "expression": chance.choice(_NOUNS), "bbox_xywh": box}  # fmt: skip
        yield json.dumps(row) + "\n"


def measure(work: Path, rows: int, images: int, tokenizer: str) -> dict[str, Any]:
    """One build; the peak of the driver is of the time after Ray's start, which costs what it costs at any size."""
    annotations = work / f"refs-{rows}.jsonl"
    with open(annotations, "w") as stream:
        stream.writelines(lines(rows, images))
    entry = {"name": "refs", "kind": "refcoco", "annotations": str(annotations), "tasks": ["rec"], "split": "train"}
    config = work / f"config-{rows}.json"
    config.write_text(json.dumps({"tagged": str(work / "tagged"), "sets": [entry], "tokenizer": tokenizer}))
    out = work / f"out-{rows}"
    command = [sys.executable, "-m", "jobs.instructions", "--config", str(config), "--out", str(out),
               "--ray.address", "local"]  # fmt: skip
    begun = time.monotonic()
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=open(work / f"log-{rows}", "w"))  # noqa: SIM115
    process, resident = psutil.Process(driver.pid), []
    while driver.poll() is None:
        try:
            resident.append(process.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.2)
    seconds = time.monotonic() - begun
    assert driver.stdout is not None
    line = driver.stdout.read()
    if driver.wait() != 0:
        raise RuntimeError((work / f"log-{rows}").read_text()[-3000:])
    result = json.loads(line)
    shutil.rmtree(out)
    return {"rows in": rows, "rows out": result["rows"], "bad": result["quarantined"], "seconds": round(seconds, 1),
            "rows/s": round(rows / seconds), "driver peak MiB": max(resident) >> 20,
            "driver end MiB": resident[-2] >> 20}  # fmt: skip


def main() -> None:
    """Prints a row for each size as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--tokenizer", default="", help="a tokenizer's folder: also count tokens")
    parser.add_argument("--work", default="", help="where to write; a temporary folder by default")
    arguments = parser.parse_args()
    work = Path(arguments.work or tempfile.mkdtemp(prefix="instructions-growth-"))
    write_tagged(work / "tagged", arguments.images)
    for rows in arguments.rows:
        found = measure(work, rows, arguments.images, arguments.tokenizer)
        print("  ".join(f"{name} {value}" for name, value in found.items()), flush=True)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
