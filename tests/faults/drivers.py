"""Drivers: `python -m jobs.VERB` in a separate process group, with a record of its progress over time."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = float(os.environ.get("LION_FAULT_PATIENCE", "900"))


class Driver:
    """The process of a verb.

    Args:
        verb: the verb, such as precompute.
        options: its dotted options.
        folder: the folder of `NAME.json` (stdout) and `NAME.log` (stderr).
        name: name of this run.
        progress: returns the progress of the job, a number that grows.
        environment: the variables of the process.

    Attributes:
        log: the file with stderr.
        grown: (time, progress) of each moment at which the progress grew; times are of the monotonic clock.
    """

    def __init__(
        self,
        verb: str,
        options: Mapping[str, Any],
        folder: Path,
        name: str,
        progress: Callable[[], int],
        environment: Mapping[str, str],
    ) -> None:
        flags = [part for option, value in options.items() for part in (f"--{option}", _text(value))]
        folder.mkdir(parents=True, exist_ok=True)
        self.log, self._out = folder / f"{name}.log", folder / f"{name}.json"
        with open(self.log, "wb") as stderr, open(self._out, "wb") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"jobs.{verb}", *flags], cwd=ROOT, stdout=stdout, stderr=stderr,
                start_new_session=True, env=environment,
            )  # fmt: skip
        self._progress, self.grown = progress, [(time.monotonic(), progress())]
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while self.process.poll() is None:
            self._record()
            time.sleep(0.02)
        self._record()

    def _record(self) -> None:
        progress = self._progress()
        if progress > self.grown[-1][1]:
            self.grown.append((time.monotonic(), progress))

    @property
    def reached(self) -> int:
        """The latest progress."""
        return self.grown[-1][1]

    def wait_until(self, holds: Callable[[], object], patience: float = PATIENCE) -> None:
        """Wait until `holds` returns a true value.

        Raises:
            RuntimeError: the driver ended before, or it took longer than `patience` seconds.
        """
        deadline = time.monotonic() + patience
        while not holds():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.log} ended or waited too long:\n{self.tail()}")
            time.sleep(0.02)

    def finish(self, patience: float = PATIENCE) -> tuple[int, dict[str, Any]]:
        """Wait for the end and return the exit code and the JSON line; an empty dict where the code is not 0.

        Raises:
            RuntimeError: it took longer than `patience` seconds. The driver is killed then.
        """
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise RuntimeError(f"{self.log} waited too long:\n{self.tail()}") from error
        lines = self._out.read_text().strip().splitlines()
        return code, json.loads(lines[-1]) if code == 0 else {}

    def kill(self) -> None:
        """Kill the process group of the driver."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def tail(self) -> str:
        """Return the end of stderr."""
        return self.log.read_text(errors="replace")[-3000:]


def seconds_to_recover(struck: float, *drivers: Driver) -> float:
    """Return the longest time without new progress after a fault.

    Args:
        struck: the time of the fault, on the monotonic clock.
        drivers: the drivers of the job, the first one from before the fault.
    """
    best = max((progress for driver in drivers for when, progress in driver.grown if when <= struck), default=0)
    times = [struck]
    for driver in drivers:
        for when, progress in driver.grown:
            if when > struck and progress > best:
                times.append(when)
                best = progress
    return max((after - before for before, after in itertools.pairwise(times)), default=0.0)


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool | list | dict) else str(value)
