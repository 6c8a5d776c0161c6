"""P1 for instructions: killed at a random point and run again, the result has every row once, in the same bytes."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.core.steps import read_manifest
from tests.faults.processes import kill_with_followers
from tests.jobs.test_instructions import tagged_table

PATIENCE = 240.0


class InstructionsDriver:
    """A `jobs.instructions` process in a separate process group, with its own Ray."""

    def __init__(self, root: Path, world: Path, tagged: str, out: Path, log: Path) -> None:
        sets = [
            {"name": "captions", "kind": "coco_captions", "annotations": str(world / "captions_train.json")},
            {"name": "refs", "kind": "refcoco", "annotations": str(world / "refcoco/refs(sample).p"), "split": "train",
             "tasks": ["rec", "reg"]},
        ]  # fmt: skip
        config = log.with_suffix(".json")
        config.write_text(json.dumps({"tagged": tagged, "sets": sets, "shard_rows": 8}))
        self.out, self.log = out, log
        command = [sys.executable, "-m", "jobs.instructions", "--config", str(config), "--out", str(out),
                   "--ray.address", "local", "--ray.local_cpus", "4"]  # fmt: skip
        with open(log, "wb") as stream:
            self.process = subprocess.Popen(command, cwd=root, stdout=stream, stderr=stream, start_new_session=True)

    def finish(self) -> Path:
        """Wait for the end and return the folder of the result."""
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()[-3000:]
        return Path(json.loads(self.log.read_text().strip().splitlines()[-1])["path"])

    def done(self) -> set[Path]:
        """Return the proofs of the finished shards of questions."""
        return {path for path in self.out.glob("instructions-*/done/*.json") if not path.name.startswith("images@")}

    def kill_after(self, count: int) -> None:
        """Kill the driver when `count` shards are done."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and len(self.done()) < count:
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.01)
        kill_with_followers(self.process)


@pytest.mark.slow
def test_a_driver_killed_at_a_random_point(root: Path, world: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("LION_FAULT_SEED", random.SystemRandom().randrange(10_000)))
    print(f"LION_FAULT_SEED={seed}")
    tagged = tagged_table(world, tmp_path / "tagged.parquet")
    whole = InstructionsDriver(root, world, tagged, tmp_path / "whole", tmp_path / "whole-log").finish()
    killed = InstructionsDriver(root, world, tagged, tmp_path / "killed", tmp_path / "killed-log")
    killed.kill_after(random.Random(seed).randint(1, 20))
    before = {path: path.stat().st_mtime_ns for path in killed.done()}
    again = InstructionsDriver(root, world, tagged, tmp_path / "killed", tmp_path / "again-log")
    result = again.finish()
    assert read_manifest(str(result))["digest"] == read_manifest(str(whole))["digest"]
    assert {path: path.stat().st_mtime_ns for path in before} == before, "finished shards are not computed again"
    assert not list(result.rglob("*.partial"))
