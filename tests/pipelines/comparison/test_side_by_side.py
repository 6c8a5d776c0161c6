"""Steps in processes of their own: what needs what, what runs at once, what a failure and a signal do."""

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


def processes(of: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(of).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is none either
            if "jobs.sample_world" in child.cmdline():
                found.append(child)
    return found


def wait_for(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 120
    while not (seen := found()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return seen


def test_a_step_begins_when_those_that_it_refers_to_are_done_and_others_at_once(
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


def test_a_failure_is_said_in_the_steps_words_and_what_ran_beside_it_is_kept(tmp_path: Path) -> None:
    steps = {"good": world(20), "bad": world(3), "never": world(12)}
    with pytest.raises(UserError, match="A sample world of 3 images"):
        run_side_by_side(steps, str(tmp_path), 2)
    assert len(list(tmp_path.glob("sample_world-*/manifest.json"))) == 1

    steps["bad"] = world(11)
    assert [outcome["skipped"] for outcome in run_side_by_side(steps, str(tmp_path), 2)] == [True, False, False]


def test_sigterm_is_passed_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def stop() -> None:
        wait_for(lambda: processes(os.getpid()))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(Stopped, match="run the same command again"):
        run_side_by_side({"long": world(FOREVER), "next": world()}, str(tmp_path), 1)
    assert not processes(os.getpid())
    assert not list(tmp_path.glob("*/manifest.json"))
    assert "failed" not in caplog.text  # it did what it was told


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
