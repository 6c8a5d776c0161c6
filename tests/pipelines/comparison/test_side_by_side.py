"""Steps in separate processes: their order, how many run at the same time, failures and signals."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.comparison.side_by_side import run_side_by_side
from pipelines.core.errors import Stopped, UserError
from pipelines.core.workflow import StepSpec

FOREVER = 1_000_000  # images
OUTSIDE = """
import sys
from pipelines.core.workflow import StepSpec
from pipelines.comparison.side_by_side import run_side_by_side
run_side_by_side({"long": StepSpec("sample_world", {"images": 1000000})}, sys.argv[1], 2)
"""


def world(images: int = 10, **more: Any) -> StepSpec:
    return StepSpec("sample_world", {"images": images, "preset": "tiny", **more}, "Draws.")


def processes(parent: int) -> list[psutil.Process]:
    """Return the running child processes that draw a sample world."""
    matches = []
    for child in psutil.Process(parent).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a child may end meanwhile; a zombie does not count either
            if "jobs.sample_world" in child.cmdline():
                matches.append(child)
    return matches


def wait_for(condition: Callable[[], Any]) -> Any:
    """Call a function until it returns a true value; return that value."""
    deadline = time.monotonic() + 120
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


def test_a_step_waits_for_the_steps_that_it_refers_to_and_others_run_in_parallel(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    counts, over = [], threading.Event()

    def count() -> None:
        while not over.wait(0.02):
            counts.append(len(processes(os.getpid())))

    threading.Thread(target=count, daemon=True).start()
    steps = {"last": world(out="${first}/more"), "first": world(seed=1), "second": world(seed=2)}
    outcomes = run_side_by_side(steps, str(tmp_path), 2)
    over.set()

    assert [outcome["name"] for outcome in outcomes] == ["last", "first", "second"]
    assert Path(outcomes[0]["path"]).parent == Path(outcomes[1]["path"]) / "more"
    assert all(outcome["rows"] == 10 and not outcome["skipped"] for outcome in outcomes)
    assert max(counts) == 2
    assert all(outcome["skipped"] for outcome in run_side_by_side(steps, str(tmp_path), 2))
    assert "first | " in capfd.readouterr().err


def test_a_failure_has_the_steps_message_and_other_running_steps_finish(tmp_path: Path) -> None:
    steps = {"good": world(20), "bad": world(3), "never": world(12)}
    with pytest.raises(UserError, match="A sample world of 3 images"):
        run_side_by_side(steps, str(tmp_path), 2)
    assert len(list(tmp_path.glob("sample_world-*/manifest.json"))) == 1

    steps["bad"] = world(11)
    assert [outcome["skipped"] for outcome in run_side_by_side(steps, str(tmp_path), 2)] == [True, False, False]


def test_sigterm_is_forwarded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def stop() -> None:
        wait_for(lambda: processes(os.getpid()))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(Stopped, match="run the same command again"):
        run_side_by_side({"long": world(FOREVER), "next": world()}, str(tmp_path), 1)
    assert not processes(os.getpid())
    assert not list(tmp_path.glob("*/manifest.json"))
    assert "failed" not in caplog.text  # a step that was stopped did not fail


def test_a_killed_driver_leaves_no_process_behind(tmp_path: Path) -> None:
    driver = subprocess.Popen([sys.executable, "-c", OUTSIDE, str(tmp_path)], stderr=subprocess.DEVNULL)
    (child,) = wait_for(lambda: processes(driver.pid))
    driver.kill()
    driver.wait()
    child.wait(60)
    assert not child.is_running()


def test_steps_that_wait_for_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="refer to each other"):
        run_side_by_side({"a": world(out="${b}"), "b": world(out="${a}")}, str(tmp_path), 2)
