"""Growth of precompute with its rows: time, and the memory of the driver and of the largest worker.

    python -m tests.benchmarks.precompute_growth [--rows 10000 100000 1000000] [--shard_rows 1024] [--work DIR]

All rows have the same small image. Tags come from a table with the first ten thousand rows; a longer table would take
memory that RAM does not take. So the cost per row without its pixels is measured: cutting the source, blocks of Ray
Data, records of shards, files, the manifest. The driver and its Ray processes are sampled.
"""

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipelines.core.steps import git_commit
from pipelines.core.tables import TAG

ROOT = Path(__file__).resolve().parents[2]
TAGGED = 10_000


def annotations(rows: int) -> Iterator[str]:
    """Write a file in COCO's instances form with `rows` entries of the same image, without boxes."""
    yield '{"images": ['
    for number in range(rows):
        entry = {"id": number, "file_name": "one.jpg", "width": 8, "height": 8}
        yield f"{',' if number else ''}{json.dumps(entry)}"
    yield '], "annotations": [], "categories": []}'


def write_tags(path: Path) -> None:
    """Write a table with two tags for each of the first images."""
    ids = [str(number) for number in range(TAGGED)]
    tags = [{"tag": "dog", "score": 0.9}, {"tag": "cat", "score": 0.4}]
    schema = pa.schema([("image_id", pa.string()), ("tags", pa.list_(TAG))])
    pq.write_table(pa.table({"image_id": ids, "tags": [tags] * TAGGED}, schema), path)


def measure(work: Path, rows: int, shard_rows: int) -> dict[str, Any]:
    """Run precompute in a separate process on an image that is drawn into `work/images`."""
    picture = work / "images/one.jpg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(picture)
    source = work / f"instances-{rows}.json"
    with open(source, "w") as stream:
        stream.writelines(annotations(rows))
    write_tags(work / "tags.parquet")
    out = work / f"out-{rows}"
    command = [
        sys.executable, "-m", "jobs.precompute", "--source.kind", "coco_instances", "--source.annotations", str(source),
        "--source.images", str(work / "images"), "--tagger.kind", "table", "--tagger.path",
        str(work / "tags.parquet"), "--shard_rows", str(shard_rows), "--out", str(out), "--ray.address", "local",
    ]  # fmt: skip
    begun = time.monotonic()
    with open(work / f"log-{rows}", "w") as log:
        driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log)
    peaks: dict[str, int] = {}
    while driver.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            _sample(psutil.Process(driver.pid), peaks)
        time.sleep(0.5)
    seconds = time.monotonic() - begun
    assert driver.stdout is not None
    line = driver.stdout.read()
    if driver.wait() != 0:
        raise RuntimeError((work / f"log-{rows}").read_text()[-3000:])
    result = json.loads(line)
    size = sum(file.stat().st_size for file in Path(result["path"]).rglob("*") if file.is_file())
    files = sum(file.is_file() for file in Path(result["path"]).rglob("*"))
    shutil.rmtree(out)
    return {
        "rows": result["rows"], "seconds": round(seconds, 1), "rows/s": round(rows / seconds),
        "driver peak MiB": peaks["driver"] >> 20, "largest worker peak MiB": peaks["worker"] >> 20, "files": files,
        "bytes/row": round(size / rows),
    }  # fmt: skip


def _sample(driver: psutil.Process, peaks: dict[str, int]) -> None:
    """Update the peaks of the driver and of Ray's workers with their present memory, without shared memory."""
    for process in [driver, *driver.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            memory = process.memory_info()
            if process.pid == driver.pid or " ".join(process.cmdline()).startswith("ray::"):
                name = "driver" if process.pid == driver.pid else "worker"
                peaks[name] = max(peaks.get(name, 0), memory.rss - memory.shared)


def main() -> None:
    """Measure each size and print its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--shard_rows", type=int, default=1024)
    parser.add_argument("--work", default="", help="folder for the files; default: a temporary folder")
    arguments = parser.parse_args()
    work = Path(arguments.work or tempfile.mkdtemp(prefix="precompute-growth-"))
    print(f"commit {git_commit()}, {psutil.cpu_count()} cores, shards of {arguments.shard_rows} rows")
    for rows in arguments.rows:
        row = measure(work, rows, arguments.shard_rows)
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
