"""A sweep whose driver is killed resumes: no finished trial is run again (P3)."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.faults.processes import kill_with_followers
from tests.pipelines.training import conftest as drawn
from tests.pipelines.training.conftest import World

STEPS = 6
world, tag_encoder = drawn.world, drawn.tag_encoder  # fixtures


def traced(out: Path) -> dict[str, list[int]]:
    """Return the steps of each training in the order in which they were done, by the name of its folder."""
    files = out.glob("train_tag_encoder-*/trace/rank-0.jsonl")
    return {file.parent.parent.name: [json.loads(line)["step"] for line in file.read_text().splitlines()]
            for file in files}  # fmt: skip


@pytest.mark.slow
def test_a_killed_sweep_resumes(world: World, tag_encoder: str, tmp_path: Path, root: Path) -> None:
    training = {
        "data": world.tagged, "base": tag_encoder, "normalize": True, "pooling": "mean",
        "loop": {"steps": STEPS, "batch_size": 8, "validate_every": 2, "trace": True},
        "launch": {"cpus_per_worker": 1},
    }  # fmt: skip
    settings = {
        "training": training, "space": {"margin": {"choice": [0.2, 0.4, 0.6]}}, "search": "grid", "concurrent": 1,
        "early_stopping": {"enabled": False}, "out": str(tmp_path / "runs"),
    }  # fmt: skip
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "jobs.sweep", "--config", str(tmp_path / "sweep.yaml")]
    environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
    out = tmp_path / "runs"
    with open(tmp_path / "stderr", "wb") as stderr:
        driver = subprocess.Popen(
            command, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
        )
        deadline = time.monotonic() + 400
        # The unchanged configuration, a finished trial, and a second one that has begun.
        while len(traced(out)) < 3 and driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert driver.poll() is None, (tmp_path / "stderr").read_text()
        kill_with_followers(driver, followers_too=True)
    assert len(traced(out)) == 3, (tmp_path / "stderr").read_text()
    finished = {path.parent.name for path in out.glob("train_tag_encoder-*/manifest.json")}
    assert len(finished) == 2
    before = traced(out)
    again = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert again.returncode == 0, again.stderr
    assert "resuming the sweep in" in again.stderr
    after = traced(out)
    assert len(after) == 4
    assert {name: after[name] for name in finished} == {name: before[name] for name in finished}
    assert all(set(steps) == set(range(STEPS)) for steps in after.values())
    (sweep,) = out.glob("sweep-*")
    ranking = (sweep / "ranking.md").read_text()
    assert sum("| finished" in line for line in ranking.splitlines()) == 4
