"""Running benchmarks one after the other, each in a separate process, and collecting their figures."""

import contextlib
import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import Figure, NotMeasured

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {field.name for field in dataclasses.fields(Figure)}


@dataclasses.dataclass
class Outcome:
    """The result of one benchmark.

    Attributes:
        name: name of the benchmark.
        figures: its figures.
        left_out: figures that this machine cannot measure.
        seconds: wall time.
        load: load averages over one minute, before and after the run.
        failure: the last lines of its log, if it failed.
    """

    name: str
    figures: list[Figure] = dataclasses.field(default_factory=list)
    left_out: list[NotMeasured] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    load: tuple[float, float] = (0.0, 0.0)
    failure: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return {**dataclasses.asdict(self), "figures": [figure.as_dict() for figure in self.figures]}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Outcome":
        """Return the result from the JSON of `as_dict`."""
        figures = [Figure(**{name: row[name] for name in FIELDS}) for row in document["figures"]]
        left_out = [NotMeasured(**row) for row in document["left_out"]]
        load = tuple(document["load"])
        return cls(document["name"], figures, left_out, document["seconds"], load, document["failure"])


def run(
    modules: Mapping[str, str],
    logs: Path,
    quick: bool,
    tell: Callable[[str], None],
    done: Callable[[list[Outcome]], Any],
) -> list[Outcome]:
    """Run benchmarks one after the other. A benchmark that fails does not stop the others.

    Args:
        modules: module of each benchmark, by name.
        logs: folder for their output.
        quick: whether to run fewer and smaller rounds.
        tell: called with each progress line.
        done: called with all results after each benchmark, so that an interrupted run loses at most one benchmark.
    """
    outcomes: list[Outcome] = []
    logs.mkdir(parents=True, exist_ok=True)
    for number, (name, module) in enumerate(modules.items(), start=1):
        tell(f"[{number}/{len(modules)}] {name}")
        outcome = Outcome(name)
        outcomes.append(outcome)
        before, begun = os.getloadavg()[0], time.monotonic()
        log = logs / f"{name}.log"
        with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as work, log.open("w") as stream:
            command = [sys.executable, "-m", "tests.benchmarks.worker", module, work, *(["quick"] if quick else [])]
            with subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stream, text=True, env=environment(),
                start_new_session=True,
            ) as process:  # fmt: skip
                try:
                    _read(process.stdout or (), outcome, tell)
                except BaseException:
                    os.killpg(process.pid, signal.SIGTERM)
                    raise
        outcome.seconds, outcome.load = time.monotonic() - begun, (before, os.getloadavg()[0])
        if process.returncode:
            outcome.failure = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            tell(f"    FAILED with exit code {process.returncode}; its log is {log}:\n{outcome.failure}")
        tell(f"    {outcome.seconds:.0f} s, load average {before:.1f} before and {outcome.load[1]:.1f} after")
        done(outcomes)
    return outcomes


def _read(lines: Iterable[str], outcome: Outcome, tell: Callable[[str], None]) -> None:
    for line in lines:
        document = json.loads(line)
        if "left_out" in document:
            outcome.left_out.append(NotMeasured(**document["left_out"]))
            tell(f"    {outcome.left_out[-1].name}: not measured: {outcome.left_out[-1].why}")
            continue
        figure = Figure(**{name: document["figure"][name] for name in FIELDS})
        outcome.figures.append(figure)
        tell(f"    {figure.name}: {figure.ratio:.2f} (best rounds {figure.best:.2f}): {figure.what} / {figure.against}")


def environment() -> dict[str, str]:
    """Return the environment of a benchmark's process: no access to the Hub, one thread by default."""
    fixed = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return {"OMP_NUM_THREADS": "1", **os.environ, **fixed}


def facts() -> dict[str, Any]:
    """Return a description of the machine, the commit and the library versions."""
    import torch

    from pipelines.core import steps

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus,
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "commit": steps.git_commit(),
        "versions": steps.versions(),
        "load_average": os.getloadavg(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def chosen(only: Sequence[str], modules: Mapping[str, str]) -> dict[str, str]:
    """Return the benchmarks named in `only`, or all if it is empty.

    Raises:
        SystemExit: a name is unknown.
    """
    if unknown := set(only) - set(modules):
        raise SystemExit(f"There is no benchmark {', '.join(sorted(unknown))}; use one of {', '.join(modules)}.")
    return {name: module for name, module in modules.items() if not only or name in only}
