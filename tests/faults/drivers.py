"""Drivers under fire: `python -m jobs.VERB` in a process group of its own, and how far it has come by when."""

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
    """A verb's process.

    Args:
        verb: which one.
        options: its dotted options.
        folder: where `NAME.json` gets its stdout and `NAME.log` its stderr.
        name: of this run.
        progress: how far the job has come, as a number that grows.
        environment: of the process.

    Attributes:
        log: the file of stderr.
        grown: when progress grew, on the monotonic clock, and how far it was then.
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
            self._look()
            time.sleep(0.02)
        self._look()

    def _look(self) -> None:
        found = self._progress()
        if found > self.grown[-1][1]:
            self.grown.append((time.monotonic(), found))

    @property
    def reached(self) -> int:
        """How far it has come."""
        return self.grown[-1][1]

    def wait_until(self, holds: Callable[[], object], patience: float = PATIENCE) -> None:
        """Waits until something holds.

        Raises:
            RuntimeError: the driver ended before, or it took too long.
        """
        deadline = time.monotonic() + patience
        while not holds():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.log} ended or waited too long:\n{self.tail()}")
            time.sleep(0.02)

    def finish(self, patience: float = PATIENCE) -> tuple[int, dict[str, Any]]:
        """Waits for the end and gives the exit code and the last line; an empty one where there is none.

        Raises:
            RuntimeError: it took too long; it is ended then.
        """
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise RuntimeError(f"{self.log} waited too long:\n{self.tail()}") from error
        lines = self._out.read_text().strip().splitlines()
        return code, json.loads(lines[-1]) if code == 0 else {}

    def kill(self) -> None:
        """Ends the driver's process group at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def tail(self) -> str:
        """The last words."""
        return self.log.read_text(errors="replace")[-3000:]


def seconds_to_recover(struck: float, *drivers: Driver) -> float:
    """The longest time after a moment in which a job came no further than it had been before."""
    best = max((found for driver in drivers for when, found in driver.grown if when <= struck), default=0)
    times = [struck]
    for driver in drivers:
        for when, found in driver.grown:
            if when > struck and found > best:
                times.append(when)
                best = found
    return max((after - before for before, after in itertools.pairwise(times)), default=0.0)


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool | list | dict) else str(value)
