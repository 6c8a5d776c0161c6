"""Run steps in separate processes. Steps that do not depend on each other run at the same time."""

import collections
import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.errors import DataRefused, Stopped, UserError
from pipelines.core.runtime import python_path
from pipelines.core.signals import on_sigterm
from pipelines.core.workflow import StepSpec, completion_text, references, substitute

log = logging.getLogger("lion.pipeline")
_SET_PARENT_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG
_LAST_LINES = 40  # lines of stderr that are kept for an error message
_POLL_INTERVAL = 0.1  # seconds


def run_side_by_side(
    steps: Mapping[str, StepSpec], out: str, at_once: int, variables: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Run steps as `run_steps` does, but each as a process `python -m jobs.VERB`, several at a time.

    A step begins when the steps that it refers to are done. If a step fails, the running ones finish and no other
    begins; the same call resumes later. SIGTERM is forwarded to the processes: a training saves a checkpoint and ends.
    They also get SIGTERM if this process dies. They share the Ray cluster of this process, if it started one.

    Args:
        steps: the steps by name.
        out: parent of the steps' folders.
        at_once: largest number of processes at the same time.
        variables: values of `${NAME}` in the steps' configurations, in addition to `out` and the steps' folders.

    Returns:
        The JSON object that each step printed, with its name and seconds, in the order of `steps`.

    Raises:
        UserError, DataRefused, RuntimeError: the error of the first step that failed.
        Stopped: this process got SIGTERM.
        ValueError: steps refer to each other.
    """
    values = {**(variables or {}), "out": out}
    waiting, running, outcomes = dict(steps), list[_Child](), dict[str, dict[str, Any]]()
    failures: list[Exception] = []
    stop = Stopped("SIGTERM: the comparison stopped and kept its finished steps; run the same command again to resume.")
    with on_sigterm(lambda: failures.append(stop)):
        try:
            while running or (waiting and not failures):
                undone = steps.keys() - outcomes.keys()
                ready = [name for name, spec in waiting.items() if not references(spec.config) & undone]
                for name in ready[: 0 if failures else at_once - len(running)]:
                    running.append(_Child(name, waiting.pop(name), values, list(steps).index(name) + 1, len(steps)))
                if not running:
                    raise ValueError(f"The steps {sorted(waiting)} refer to each other; remove one of the references.")
                time.sleep(_POLL_INTERVAL)
                for child in running:
                    child.forward_sigterm(failures.count(stop))
                for child in [child for child in running if child.process.poll() is not None]:
                    running.remove(child)
                    try:
                        outcomes[child.name] = child.outcome()
                    except (UserError, DataRefused, RuntimeError) as error:
                        if stop not in failures:
                            log.error("Step %s failed; the other running steps finish first. %s", child.name, error)
                        failures.append(error)
                        continue
                    values[child.name] = str(outcomes[child.name]["path"])
        finally:
            for child in running:
                child.process.terminate()
            for child in running:
                child.process.wait()
    if failures:
        raise failures[0]
    return [outcomes[name] for name in steps]


class _Child:
    """The process of a step. Its lines of stderr are copied to this process' stderr with the step's name in front."""

    def __init__(self, name: str, spec: StepSpec, values: Mapping[str, str], number: int, total: int) -> None:
        log.info("[%d/%d] %s (%s). %s", number, total, name, spec.verb, spec.why)
        self.name, self._progress, self._began = name, f"[{number}/{total}]", time.perf_counter()
        self._verb, self._folder = spec.verb, tempfile.TemporaryDirectory(prefix="lion-step-")
        config, self._printed = Path(self._folder.name, "config.yaml"), Path(self._folder.name, "stdout")
        config.write_text(yaml.safe_dump({"out": values["out"], **substitute(spec.config, values)}))
        parent = os.getpid()
        with open(self._printed, "wb") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"jobs.{spec.verb}", "--config", str(config)],
                env=_environment(), stdout=stdout, stderr=subprocess.PIPE, text=True, errors="replace",
                preexec_fn=lambda: _follow(parent),
            )  # fmt: skip
        self._sigterms = 0
        self._lines: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
        self._listener = threading.Thread(target=self._listen, name=f"lines of {name}", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line.rstrip())
            sys.stderr.write(f"{self.name} | {line}")

    def forward_sigterm(self, count: int) -> None:
        """Send SIGTERM until the process got `count` of them. A training that gets a second one does not save."""
        while self._sigterms < count:
            self.process.terminate()
            self._sigterms += 1

    def outcome(self) -> dict[str, Any]:
        """Return the JSON object that the ended step printed, with its name and seconds.

        Raises:
            UserError, DataRefused, RuntimeError: the step failed; the exit code decides which of them.
        """
        self._listener.join()
        code, seconds = self.process.returncode, round(time.perf_counter() - self._began, 1)
        printed = self._printed.read_text().splitlines()
        self._folder.cleanup()
        if code:
            raise _failure(self._verb, code, list(self._lines))
        outcome = json.loads(printed[-1])
        log.info("%s %s %s", self._progress, self.name, completion_text(outcome["skipped"], seconds))
        return {"name": self.name, "seconds": seconds, **outcome}


def _failure(verb: str, code: int, lines: list[str]) -> Exception:
    """Return the exception for a failed process, so that this process ends with the same exit code and message.

    Args:
        verb: the process is `python -m jobs.VERB`.
        code: its exit code.
        lines: its last lines of stderr. The error message begins with "VERB: ".
    """
    start = max((number for number, line in enumerate(lines) if line.startswith(f"{verb}: ")), default=None)
    if start is None or code not in (UserError.exit_code, DataRefused.exit_code):
        tail = "\n".join(lines[-15:])
        return RuntimeError(f"python -m jobs.{verb} ended with exit code {code}; its last lines of stderr:\n{tail}")
    sentence = "\n".join(lines[start:]).removeprefix(f"{verb}: ")
    return UserError(sentence) if code == UserError.exit_code else DataRefused(sentence)


def _follow(parent: int) -> None:
    """Arrange, in the new process, a SIGTERM for when its parent ends, even if the parent is killed."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:  # the parent ended before the call above
        os.kill(os.getpid(), signal.SIGTERM)


def _environment() -> dict[str, str]:
    """Return the environment of a step's process, with the address of this process' Ray cluster if there is one."""
    environment = {**os.environ, "PYTHONPATH": python_path()}
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        environment.setdefault("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    return environment
