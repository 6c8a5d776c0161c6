"""P1 for precompute: killed anywhere and run again, every row is there once, and only what was missing is computed.

Real drivers in process groups of their own, each with a Ray of its own; kills are SIGKILL, at points drawn from a seed
that a failing test shows.
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


class Driver:
    """A `jobs.precompute` process of its own group."""

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
        """Waits for the end and gives the result's folder."""
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()[-3000:]
        result = json.loads(self.log.read_text().strip().splitlines()[-1])
        assert not result["skipped"]
        return Path(result["path"])

    def done(self) -> set[int]:
        """The shards that are done by now."""
        folders = list(self.out.glob("precompute-*"))
        return shards.shard_set(str(folders[0])).done() if folders else set()

    def wait_until(self, holds: Callable[[], object]) -> None:
        """Waits until something holds, or the driver's end."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and not holds():
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.02)

    def workers(self, *titles: str) -> list[psutil.Process]:
        """Ray's worker processes below this driver that run something of such a title right now."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):  # the driver may end while it is looked at
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if " ".join(child.cmdline()).startswith(titles):
                        found.append(child)
        return found


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PrecomputeConfig:
    """Sixty pictures, one of them torn."""
    folder = tmp_path_factory.mktemp("inputs")
    config = folder_config(folder, count=IMAGES)
    (folder / "images/picture-0007.jpg").write_bytes(b"\xff\xd8torn")
    return config


@pytest.fixture(scope="module")
def undisturbed(root: Path, config: PrecomputeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return Driver(root, config, folder, folder / "log").finish()


@pytest.fixture
def seed() -> int:
    """Where the kills come from; shown when the test fails."""
    seed = int(os.environ.get("LION_FAULT_SEED", random.SystemRandom().randrange(10_000)))
    print(f"LION_FAULT_SEED={seed}")
    return seed


def check_equal(found: Path, undisturbed: Path) -> None:
    """The same rows, each once, in the same bytes, and the same manifest digest."""
    ids = [row["image_id"] for row in [*rows_of(str(found)), *rows_of(str(found), "quarantine")]]
    assert len(ids) == len(set(ids)) == IMAGES
    assert digests_of(str(found)) == digests_of(str(undisturbed))
    assert rows_of(str(found), "quarantine")[0]["reason"] == "truncated"
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (found, undisturbed)]
    assert manifests[0]["digest"] == manifests[1]["digest"]
    assert not list(found.rglob("*.partial"))


def test_a_driver_killed_while_it_reads_the_source_and_at_a_random_shard(
    root: Path, config: PrecomputeConfig, undisturbed: Path, seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    first = Driver(root, config, tmp_path, tmp_path / "log-0")
    first.wait_until(lambda: list(tmp_path.glob("precompute-*/source/part-*.parquet")))
    kill_with_followers(first.process)
    assert not list(tmp_path.glob("precompute-*/manifest.json"))

    second = Driver(root, config, tmp_path, tmp_path / "log-1")
    count = chance.randrange(1, SHARDS // 2)  # far enough from the end, however late the kill comes
    second.wait_until(lambda: len(second.done()) >= count)
    time.sleep(chance.random() * 0.2)
    kill_with_followers(second.process)
    (folder,) = map(str, tmp_path.glob("precompute-*"))
    assert not Path(folder, "manifest.json").exists()
    written = {shard: Path(shards.shard_set(folder).result_file(shard)).stat().st_mtime_ns for shard in second.done()}

    third = Driver(root, config, tmp_path, tmp_path / "log-2")
    found = third.finish()
    computed = re.search(r"(\d+) of 30 shards to compute", third.log.read_text())
    assert computed
    assert int(computed[1]) == SHARDS - len(written)
    assert {shard: Path(shards.shard_set(folder).result_file(shard)).stat().st_mtime_ns for shard in written} == written
    check_equal(found, undisturbed)


def test_killed_workers_and_actors_are_replaced_within_the_run(
    root: Path, config: PrecomputeConfig, undisturbed: Path, tmp_path: Path
) -> None:
    driver = Driver(root, config, tmp_path, tmp_path / "log")
    killed = []
    # The tagger's actor first, which lives as long as the pipeline; then what runs by then, if anything still does.
    for count, titles in ((1, ("ray::MapWorker",)), (4, ("ray::MapBatches", "ray::MapWorker")), (8, ("ray::Map",))):
        driver.wait_until(lambda count=count: len(driver.done()) >= count)  # type: ignore[misc]
        for victim in driver.workers(*titles)[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
                killed.append(titles)
    found = driver.finish()
    assert killed[0] == ("ray::MapWorker",)
    check_equal(found, undisturbed)
