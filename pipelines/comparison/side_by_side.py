"""Steps in processes of their own: those that need nothing of each other run at the same time."""

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
_LAST_WORDS = 40  # lines
_EVERY = 0.1  # seconds between two looks at the processes


def run_side_by_side(
    steps: Mapping[str, StepSpec], out: str, at_once: int, variables: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Run steps as `run_steps` does, but each as `python -m jobs.VERB` and several at a time.

    A step begins when those that it refers to are done. Where one fails, those that run go on to their end, nothing
    else begins, and the same call made again goes on. SIGTERM is passed on: a training saves and ends. The processes
    get SIGTERM when this one dies, too. Where this one has started a Ray of its own, they share it.

    Args:
        steps: by name, each after those that it refers to.
        out: where the steps' folders lie.
        at_once: how many run at the same time, at most.
        variables: texts by name.

    Returns:
        What each step printed, with its name and seconds, in the order of `steps`.

    Raises:
        UserError, DataRefused, RuntimeError: what the first step that failed had to say.
        Stopped: SIGTERM reached this process.
        ValueError: steps refer to each other.
    """
    known = {**(variables or {}), "out": out}
    waiting, running, outcomes = dict(steps), list[_Child](), dict[str, dict[str, Any]]()
    failures: list[Exception] = []
    stop = Stopped("Stopped from outside; what was done is kept: run the same command again to go on.")
    with on_sigterm(lambda: failures.append(stop)):
        try:
            while running or (waiting and not failures):
                undone = steps.keys() - outcomes.keys()
                ready = [name for name, spec in waiting.items() if not references(spec.config) & undone]
                for name in ready[: 0 if failures else at_once - len(running)]:
                    running.append(_Child(name, waiting.pop(name), known, list(steps).index(name) + 1, len(steps)))
                if not running:
                    raise ValueError(f"{sorted(waiting)} refer to each other")
                time.sleep(_EVERY)
                for child in running:
                    child.ask_to_stop(failures.count(stop))
                for child in [child for child in running if child.process.poll() is not None]:
                    running.remove(child)
                    try:
                        outcomes[child.name] = child.outcome()
                    except (UserError, DataRefused, RuntimeError) as error:
                        if stop not in failures:
                            log.error("%s failed; what runs beside it goes on to its end: %s", child.name, error)
                        failures.append(error)
                        continue
                    known[child.name] = str(outcomes[child.name]["path"])
        finally:
            for child in running:
                child.process.terminate()
            for child in running:
                child.process.wait()
    if failures:
        raise failures[0]
    return [outcomes[name] for name in steps]


class _Child:
    """A step's process; its lines come out on this process' stderr, behind the step's name."""

    def __init__(self, name: str, spec: StepSpec, known: Mapping[str, str], number: int, of: int) -> None:
        log.info("[%d/%d] %s (%s). %s", number, of, name, spec.verb, spec.why)
        self.name, self._place, self._began = name, f"[{number}/{of}]", time.perf_counter()
        self._verb, self._folder = spec.verb, tempfile.TemporaryDirectory(prefix="lion-step-")
        config, self._printed = Path(self._folder.name, "config.yaml"), Path(self._folder.name, "stdout")
        config.write_text(yaml.safe_dump({"out": known["out"], **substitute(spec.config, known)}))
        parent = os.getpid()
        with open(self._printed, "wb") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"jobs.{spec.verb}", "--config", str(config)],
                env=_environment(), stdout=stdout, stderr=subprocess.PIPE, text=True, errors="replace",
                preexec_fn=lambda: _follow(parent),
            )  # fmt: skip
        self._asked = 0
        self._said: collections.deque[str] = collections.deque(maxlen=_LAST_WORDS)
        self._listener = threading.Thread(target=self._listen, name=f"lines of {name}", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._said.append(line.rstrip())
            sys.stderr.write(f"{self.name} | {line}")

    def ask_to_stop(self, times: int) -> None:
        """Pass on as many SIGTERMs as were heard until now; a second one tells a training not to save."""
        while self._asked < times:
            self.process.terminate()
            self._asked += 1

    def outcome(self) -> dict[str, Any]:
        """What the ended step printed, with its name and seconds.

        Raises:
            UserError, DataRefused, RuntimeError: it failed; by its exit code.
        """
        self._listener.join()
        code, seconds = self.process.returncode, round(time.perf_counter() - self._began, 1)
        printed = self._printed.read_text().splitlines()
        self._folder.cleanup()
        if code:
            raise _failure(self._verb, code, list(self._said))
        found = json.loads(printed[-1])
        log.info("%s %s %s", self._place, self.name, completion_text(found["skipped"], seconds))
        return {"name": self.name, "seconds": seconds, **found}


def _failure(verb: str, code: int, said: list[str]) -> Exception:
    """What a process that failed had to say, as the exception that ends the caller with the same exit code."""
    start = max((number for number, line in enumerate(said) if line.startswith(f"{verb}: ")), default=None)
    if start is None or code not in (UserError.exit_code, DataRefused.exit_code):
        words = "\n".join(said[-15:])
        return RuntimeError(f"python -m jobs.{verb} ended with exit code {code}; its last words:\n{words}")
    sentence = "\n".join(said[start:]).removeprefix(f"{verb}: ")
    return UserError(sentence) if code == UserError.exit_code else DataRefused(sentence)


def _follow(parent: int) -> None:
    """In the new process: SIGTERM when the old one is gone, however it ended."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before that was said
        os.kill(os.getpid(), signal.SIGTERM)


def _environment() -> dict[str, str]:
    environment = {**os.environ, "PYTHONPATH": python_path()}
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        environment.setdefault("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    return environment
