"""SIGTERM to the driver, as `ray job stop` and schedulers send it: the workers save, and no step is done twice (P3)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipelines.training import conftest as drawn
from tests.pipelines.training.conftest import World

STEPS, WORKERS = 60, 2
world, tag_encoder = drawn.world, drawn.tag_encoder  # fixtures


def command(world: World, start: str, out: Path, launcher: str) -> list[str]:
    options = {
        "data": world.tagged, "base": start, "normalize": "true", "out": str(out), "launch.launcher": launcher,
        "launch.workers": WORKERS, "launch.cpus_per_worker": 1, "loop.steps": STEPS, "loop.batch_size": 8,
        "loop.checkpoint_every": 10_000, "loop.trace": "true", "loop.keep_after": "true",
    }  # fmt: skip
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "jobs.train_tag_encoder", *flags]


def traced(out: Path, rank: int) -> list[int]:
    """Return the steps of a worker in the order in which they were done."""
    files = list(out.glob(f"train_tag_encoder-*/trace/rank-{rank}.jsonl"))
    return [json.loads(line)["step"] for line in files[0].read_text().splitlines()] if files else []


def stopped(arguments: list[str], out: Path, root: Path) -> tuple[int, str, float]:
    """Send SIGTERM in the middle of a training; return exit code, stderr, and the seconds until the driver ended."""
    environment = {**os.environ, "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
    with open(out / "stderr", "w+") as stderr:
        driver = subprocess.Popen(arguments, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            deadline = time.monotonic() + 300
            while driver.poll() is None and len(traced(out, 0)) < 5 and time.monotonic() < deadline:
                time.sleep(0.05)
            sent = time.monotonic()
            driver.send_signal(signal.SIGTERM)
            code = driver.wait(timeout=200)
        finally:
            driver.kill()
            driver.wait()
        return code, (out / "stderr").read_text(), time.monotonic() - sent


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", "ray"])
def test_a_driver_that_gets_sigterm_lets_its_workers_save(
    launcher: str, world: World, tag_encoder: str, tmp_path: Path, root: Path
) -> None:
    arguments = command(world, tag_encoder, tmp_path, launcher)
    code, stderr, seconds = stopped(arguments, tmp_path, root)
    assert code == 1, stderr
    assert "train_tag_encoder: Stopped by a request after step" in stderr.splitlines()[-1]
    assert seconds < 60
    done = len(traced(tmp_path, 0))
    assert 5 <= done < STEPS
    saved = [path.parent.name for path in tmp_path.glob("train_tag_encoder-*/checkpoints/*/state.json")]
    assert max(saved) == f"step-{done:08d}"  # each epoch ends with a checkpoint, too
    assert not list(tmp_path.glob("train_tag_encoder-*/stop-*"))
    subprocess.run(arguments, cwd=root, env={**os.environ, "RAY_ADDRESS": "local"}, check=True, timeout=300)
    for rank in range(WORKERS):
        assert traced(tmp_path, rank) == list(range(STEPS))
