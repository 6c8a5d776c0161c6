"""P1 for precompute: killed anywhere and run again, every row is there once, and only missing shards are computed.

The drivers are real processes in separate process groups, each with its own Ray. They are killed by SIGKILL at random
points; a failing test prints the seed.
"""

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipelines.precompute import PrecomputeConfig, shards
from tests.faults.processes import kill_with_followers
from tests.pipelines.precompute.worlds import digests_of, folder_config, rows_of

IMAGES = 60
SHARDS = 30
PATIENCE = 240.0


class PrecomputeDriver:
    """A `jobs.precompute` process in a separate process group."""

    def __init__(self, root: Path, config: PrecomputeConfig, out: Path, log: Path) -> None:
        self.out, self.log = out, log
        command = [
            sys.executable, "-m", "jobs.precompute", "--ray.address", "local", "--ray.local_cpus", "4",
            "--source.kind", "folder", "--source.images", config.source.images, "--tagger.kind", "table",
            "--tagger.path", config.tagger.path, "--out", str(out), "--shard_rows", str(IMAGES // SHARDS),
            "--max_bad_fraction", "0.1",
        ]  # fmt: skip
        with open(log, "wb") as stream:
            self.process = subprocess.Popen(command, cwd=root, stdout=stream, stderr=stream, start_new_session=True)

    def finish(self) -> Path:
        """Wait for the end and return the folder of the result."""
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()[-3000:]
        result = json.loads(self.log.read_text().strip().splitlines()[-1])
        assert not result["skipped"]
        return Path(result["path"])

    def done(self) -> set[int]:
        """Return the finished shards."""
        folders = list(self.out.glob("precompute-*"))
        return shards.shard_set(str(folders[0])).done() if folders else set()

    def wait_until(self, holds: Callable[[], object]) -> None:
        """Wait until `holds` returns a true value, or the driver ends."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and not holds():
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.02)

    def workers(self, *titles: str) -> list[psutil.Process]:
        """Return Ray's worker processes below this driver whose process title begins with one of `titles`."""
        processes = []
        with contextlib.suppress(psutil.NoSuchProcess):  # the driver may end meanwhile
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if " ".join(child.cmdline()).startswith(titles):
                        processes.append(child)
        return processes


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PrecomputeConfig:
    """A run over sixty pictures, one of them truncated."""
    folder = tmp_path_factory.mktemp("inputs")
    config = folder_config(folder, count=IMAGES)
    (folder / "images/picture-0007.jpg").write_bytes(b"\xff\xd8torn")
    return config


@pytest.fixture(scope="module")
def undisturbed(root: Path, config: PrecomputeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of an undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return PrecomputeDriver(root, config, folder, folder / "log").finish()


@pytest.fixture
def seed() -> int:
    """The seed of the kills; pytest prints it when the test fails."""
    seed = int(os.environ.get("LION_FAULT_SEED", random.SystemRandom().randrange(10_000)))
    print(f"LION_FAULT_SEED={seed}")
    return seed


def check_equal(result: Path, undisturbed: Path) -> None:
    """Check that both results have the same rows, each once, in the same bytes, and the same manifest digest."""
    ids = [row["image_id"] for row in [*rows_of(str(result)), *rows_of(str(result), "quarantine")]]
    assert len(ids) == len(set(ids)) == IMAGES
    assert digests_of(str(result)) == digests_of(str(undisturbed))
    assert rows_of(str(result), "quarantine")[0]["reason"] == "truncated"
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (result, undisturbed)]
    assert manifests[0]["digest"] == manifests[1]["digest"]
    assert not list(result.rglob("*.partial"))


def test_a_driver_killed_while_it_reads_the_source_and_at_a_random_shard(
    root: Path, config: PrecomputeConfig, undisturbed: Path, seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    first = PrecomputeDriver(root, config, tmp_path, tmp_path / "log-0")
    first.wait_until(lambda: list(tmp_path.glob("precompute-*/source/part-*.parquet")))
    kill_with_followers(first.process)
    assert not list(tmp_path.glob("precompute-*/manifest.json"))

    second = PrecomputeDriver(root, config, tmp_path, tmp_path / "log-1")
    count = rng.randrange(1, SHARDS // 2)  # far enough from the end, even if the kill comes late
    second.wait_until(lambda: len(second.done()) >= count)
    time.sleep(rng.random() * 0.2)
    kill_with_followers(second.process)
    (folder,) = map(str, tmp_path.glob("precompute-*"))
    assert not Path(folder, "manifest.json").exists()
    written = {shard: Path(shards.shard_set(folder).result_file(shard)).stat().st_mtime_ns for shard in second.done()}

    third = PrecomputeDriver(root, config, tmp_path, tmp_path / "log-2")
    result = third.finish()
    computed = re.search(r"(\d+) of 30 shards to compute", third.log.read_text())
    assert computed
    assert int(computed[1]) == SHARDS - len(written)
    assert {shard: Path(shards.shard_set(folder).result_file(shard)).stat().st_mtime_ns for shard in written} == written
    check_equal(result, undisturbed)


def test_killed_workers_and_actors_are_replaced_within_the_run(
    root: Path, config: PrecomputeConfig, undisturbed: Path, tmp_path: Path
) -> None:
    driver = PrecomputeDriver(root, config, tmp_path, tmp_path / "log")
    killed = []
    # First the tagger's actor, which lives as long as the pipeline; then any worker that still runs.
    for count, titles in ((1, ("ray::MapWorker",)), (4, ("ray::MapBatches", "ray::MapWorker")), (8, ("ray::Map",))):
        driver.wait_until(lambda count=count: len(driver.done()) >= count)  # type: ignore[misc]
        for victim in driver.workers(*titles)[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
                killed.append(titles)
    result = driver.finish()
    assert killed[0] == ("ray::MapWorker",)
    check_equal(result, undisturbed)
