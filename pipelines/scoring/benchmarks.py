"""The table of benchmarks: `benchmarks.yaml`, read once and checked."""

import difflib
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml

from pipelines.core.errors import UserError
from pipelines.scoring.metrics.answer_rules import RULES
from pipelines.scoring.metrics.catalog import find_metric, metric_names
from pipelines.sources.boxes import AUTO, BoxFormat

MIXED = "mixed"
"""The name that selects every row, each scored by its own task's metric."""
_FILE = "benchmarks.yaml"
_PLACEHOLDERS = re.compile(r"\\\{(?:text|choices)\\\}")


@dataclass(frozen=True)
class Benchmark:
    """One benchmark; the fields are explained at the head of `benchmarks.yaml`."""

    name: str
    task: str
    metric: str
    max_new_tokens: int
    source: str | None = None
    split: str | None = None
    files: tuple[str, ...] = ()
    questions: int | None = None
    prompt: str | None = None
    boxes: BoxFormat = AUTO
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    published_rule: str | None = None

    def asks_like(self, instruction: str) -> bool:
        """Return whether an instruction follows this benchmark's prompt; True where the benchmark has no prompt."""
        if self.prompt is None:
            return True
        pattern = _PLACEHOLDERS.sub(".+", re.escape(self.prompt))
        return re.fullmatch(pattern, instruction.strip(), re.DOTALL) is not None


@dataclass(frozen=True)
class BenchmarkTable:
    """All benchmarks by name, and the defaults of each task, which apply where no benchmark is named."""

    tasks: Mapping[str, Benchmark]
    benchmarks: Mapping[str, Benchmark]

    def find(self, name: str) -> Benchmark:
        """Return the benchmark, or the task's default, of that name.

        Raises:
            UserError: there is none; the message names the nearest.
        """
        benchmark = self.benchmarks.get(name) or self.tasks.get(name)
        if benchmark is None:
            names = [*self.benchmarks, *self.tasks, MIXED]
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise UserError(f"There is no benchmark {name!r}; {hint}There are: {', '.join(names)}.")
        return benchmark


_REGISTERED: dict[str, Benchmark] = {}


def register_benchmark(benchmark: Benchmark) -> None:
    """Add a benchmark for this process; a benchmark of the project is an entry of `benchmarks.yaml` instead.

    Raises:
        ValueError: a value is wrong, or there is a benchmark or a task of that name.
    """
    table = benchmark_table()
    if benchmark.name in {*table.benchmarks, *table.tasks, MIXED}:
        raise ValueError(f"There is a benchmark or a task {benchmark.name!r} already; choose another name.")
    if benchmark.task not in table.tasks:
        raise ValueError(_wrong_task(benchmark.name, benchmark.task, table.tasks))
    _REGISTERED[benchmark.name] = _checked(benchmark)


def benchmark_table() -> BenchmarkTable:
    """Return the table of the project, with the benchmarks that this process registered."""
    packaged = _packaged_table()
    if not _REGISTERED:
        return packaged
    return BenchmarkTable(packaged.tasks, {**packaged.benchmarks, **_REGISTERED})


@functools.cache
def _packaged_table() -> BenchmarkTable:
    return parse(resources.files(__package__).joinpath(_FILE).read_text(encoding="utf-8"))


def parse(text: str) -> BenchmarkTable:
    """Return a table of benchmarks from YAML.

    Raises:
        ValueError: a key is unknown or missing, or a value has the wrong kind; the message names the entry.
    """
    document = yaml.safe_load(text)
    if not isinstance(document, dict) or set(document) != {"tasks", "benchmarks"}:
        raise ValueError("The table of benchmarks must have exactly the keys `tasks` and `benchmarks`.")
    tasks = {name: _task(name, entry) for name, entry in document["tasks"].items()}
    benchmarks = {name: _benchmark(name, entry, tasks) for name, entry in document["benchmarks"].items()}
    if both := set(tasks) & set(benchmarks):
        raise ValueError(f"{sorted(both)} are names of tasks and of benchmarks; rename the benchmarks.")
    return BenchmarkTable(tasks, benchmarks)


def _task(name: str, entry: Mapping[str, Any]) -> Benchmark:
    if set(entry) != {"metric", "max_new_tokens"}:
        raise ValueError(f"Task {name!r} must have exactly `metric` and `max_new_tokens`, but has {sorted(entry)}.")
    return _checked(Benchmark(name, name, **entry))


def _benchmark(name: str, entry: Mapping[str, Any], tasks: Mapping[str, Benchmark]) -> Benchmark:
    keys = {key for key in Benchmark.__dataclass_fields__ if key != "name"}
    if unknown := set(entry) - keys:
        raise ValueError(f"Benchmark {name!r} has unknown keys {sorted(unknown)}; the keys are {sorted(keys)}.")
    if entry.get("task") not in tasks:
        raise ValueError(_wrong_task(name, entry.get("task"), tasks))
    task = tasks[entry["task"]]
    defaults: dict[str, Any] = {"metric": task.metric, "max_new_tokens": task.max_new_tokens}
    parsed = {"files": tuple(entry.get("files", ())), "boxes": _boxes(name, entry.get("boxes", {}))}
    return _checked(Benchmark(name, **defaults | dict(entry) | parsed))


def _wrong_task(name: str, task: str | None, tasks: Mapping[str, Benchmark]) -> str:
    return f"Benchmark {name!r} must have a task out of {sorted(tasks)}, not {task!r}."


def _boxes(name: str, entry: Any) -> BoxFormat:
    keys = set(BoxFormat.__dataclass_fields__)
    if not isinstance(entry, Mapping) or not keys.issuperset(entry):
        raise ValueError(f"Benchmark {name!r}: boxes is {entry!r}, but must have keys out of {sorted(keys)} only.")
    try:
        return BoxFormat(**entry)
    except ValueError as error:
        raise ValueError(f"Benchmark {name!r}: {error}") from error


def _checked(benchmark: Benchmark) -> Benchmark:
    if benchmark.metric not in metric_names():
        raise ValueError(f"{benchmark.name!r} has the metric {benchmark.metric!r}; there are {metric_names()}.")
    if benchmark.published_rule is not None and benchmark.published_rule not in RULES:
        raise ValueError(
            f"{benchmark.name!r} has the published_rule {benchmark.published_rule!r}; there are {list(RULES)}."
        )
    if benchmark.boxes != AUTO and find_metric(benchmark.metric).references != "box":
        raise ValueError(f"{benchmark.name!r} has `boxes`, but its metric {benchmark.metric!r} reads none.")
    limit = benchmark.max_new_tokens
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ValueError(f"{benchmark.name!r}: max_new_tokens must be a positive whole number, not {limit!r}.")
    for model, numbers in benchmark.published.items():
        for metric, value in numbers.items():
            if not isinstance(value, int | float) or value < 0:
                raise ValueError(f"{benchmark.name!r}: {metric} published for {model} is {value!r}, not a number.")
    return benchmark
