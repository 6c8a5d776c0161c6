"""Jobs on a real cluster: the exit code is returned, a stopped training resumes, a finished job is not repeated."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.submit import make_job
from pipelines.core.errors import UserError
from pipelines.core.steps import StepResult
from pipelines.operations.submission.config import SubmitConfig
from tests.faults.test_training_stopped import command, traced
from tests.pipelines.training import conftest as drawn
from tests.pipelines.training.conftest import World
from tests.ports import free_port

world, tag_encoder = drawn.world, drawn.tag_encoder  # fixtures
STEPS = 60


@pytest.fixture(scope="module")
def dashboard(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start `make cluster` with separate ports, files and token, and return the address of its dashboard."""
    port = free_port()
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "token").write_text("of-this-test-" + "0" * 32)
    settings = {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "OMP_NUM_THREADS": "1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "RAY_TMPDIR": f"/tmp/lion-ray-{port}",
    }  # fmt: skip
    command = [sys.executable, "-m", "cluster.local", "--port", str(port), "--folder", str(folder)]
    cluster = subprocess.Popen(command, cwd=root, env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True)
    assert cluster.stdout is not None
    try:
        lines = list(iter(cluster.stdout.readline, "Ctrl-C stops both.\n"))
        assert f"http://127.0.0.1:{port}" in lines[0]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
            yield f"http://127.0.0.1:{port}"
    finally:
        cluster.send_signal(signal.SIGINT)
        assert cluster.wait(timeout=300) == 0
        shutil.rmtree(settings["RAY_TMPDIR"])


def submitted(dashboard: str, words: list[str], detach: bool = False, stop: bool = False) -> StepResult:
    from pipelines.operations.submission.run import submit

    return submit(SubmitConfig(words, dashboard, detach=detach, stop=stop), make_job(words))


@pytest.mark.slow
def test_the_exit_code_is_returned_and_a_stopped_job_resumes(
    dashboard: str, world: World, tag_encoder: str, tmp_path: Path
) -> None:
    mistake = ["convert", "--kind", "ram", "--checkpoint", "/no/such.pth", "--tags", "/no/tags", "--out", str(tmp_path)]
    assert submitted(dashboard, mistake).exit_code == 2

    training = ["train_tag_encoder", *command(world, tag_encoder, tmp_path, "local")[3:], "--launch.workers", "1"]
    first = submitted(dashboard, training, detach=True)
    deadline = time.monotonic() + 300
    while len(traced(tmp_path, 0)) < 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert submitted(dashboard, training, detach=True).path == first.path  # follows the same job
    stopped = submitted(dashboard, training, stop=True)
    assert (stopped.path, stopped.summary["status"]) == (first.path, "STOPPED")
    assert 5 <= len(traced(tmp_path, 0)) < STEPS

    done = submitted(dashboard, training)
    assert (done.step, done.exit_code) == ("train_tag_encoder", 0)
    assert traced(tmp_path, 0) == list(range(STEPS))
    again = submitted(dashboard, training)
    assert json.loads(again.as_json()) == json.loads(done.as_json())
    manifest = json.loads((Path(done.path) / "manifest.json").read_text())
    assert manifest["git_commit"]


def test_a_missing_dashboard_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"No Ray dashboard answers at http://127\.0\.0\.1:9"):
        submitted("http://127.0.0.1:9", ["convert", "--kind", "ram", "--checkpoint", "/a", "--out", "/tmp/x"])
