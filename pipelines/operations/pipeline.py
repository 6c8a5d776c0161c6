"""All steps in order, wired by their names: what `jobs.pipeline` runs.

A pipeline is a mapping from a step's name to its verb and configuration. A `${name}` inside a configuration's text
stands for the result folder of the step of that name, or for one of the pipeline's variables; so the same file serves
the sample world and real data. Steps are skipped when done, each by its own manifest.
"""

import copy
import dataclasses
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.runtime import RayConfig, keep_ray
from pipelines.core.steps import StepResult, git_commit, runtime_group

log = logging.getLogger("lion.pipeline")
_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*)\}")


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """One step of a pipeline."""

    verb: str
    """The verb that runs it, such as precompute."""
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The verb's configuration, as in its own YAML; ${name} stands for another step's folder or a variable."""
    why: str = ""
    """One sentence for the person who watches: what this step is for."""


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """Runs every step of the main job in order; finished steps are skipped and say so."""

    steps: dict[str, StepSpec] = dataclasses.field(default_factory=dict)
    """The steps by name, in the order in which they run."""
    variables: dict[str, str] = path_field("name", default_factory=dict)
    """Texts that the steps' configurations refer to by ${name}, such as the place of the images."""
    set: list[str] = dataclasses.field(default_factory=list)
    """Changes to single fields of steps, as `step.field=value`, such as `tagged.tagger.kind=table`."""
    out: str = path_field("output", "runs")
    """The folder or URI under which every step's folder and the report lie."""
    ray: RayConfig = runtime_group(RayConfig)


Runner = Callable[[Any], StepResult]
Prepare = Callable[[str, Mapping[str, Any]], tuple[Any, Runner]]
"""(verb, configuration as plain values) → (the typed configuration, what runs it); raises UserError on a bad one."""


def references(value: Any) -> set[str]:
    """The names that a configuration refers to."""
    if isinstance(value, str):
        return set(_REFERENCE.findall(value))
    if isinstance(value, Mapping):
        return set().union(*map(references, value.values())) if value else set()
    if isinstance(value, list | tuple):
        return set().union(*map(references, value)) if value else set()
    return set()


def substitute(value: Any, known: Mapping[str, str]) -> Any:
    """`value` with every `${name}` replaced by what `known` has for it; other braces stay."""
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: known.get(match[1], match[0]), value)
    if isinstance(value, Mapping):
        return {key: substitute(item, known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [substitute(item, known) for item in value]
    return value


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` over it, group by group."""
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def with_changes(config: PipelineConfig) -> PipelineConfig:
    """The pipeline with what `set` changes in its steps.

    Raises:
        UserError: a change is not of the form `step.field=value`, or names a step that is not there.
    """
    configs = {name: copy.deepcopy(spec.config) for name, spec in config.steps.items()}
    for change in config.set:
        path, found, text = change.partition("=")
        name, *keys = path.split(".")
        if not (found and keys):
            raise UserError(f"--set takes step.field=value, such as tagged.tagger.kind=table, not {change!r}.")
        if name not in configs:
            raise UserError(f"--set {change!r} names no step; the steps are {list(configs)}.")
        group = configs[name]
        for key in keys[:-1]:
            group = group.setdefault(key, {})
        group[keys[-1]] = yaml.safe_load(text)
    steps = {name: dataclasses.replace(spec, config=configs[name]) for name, spec in config.steps.items()}
    return dataclasses.replace(config, steps=steps, set=[])


def check(config: PipelineConfig, prepare: Prepare) -> None:
    """Refuses a pipeline that could only fail later: an unknown verb, key or name, or a step that refers forwards.

    Raises:
        UserError: says which step, and what to change.
    """
    if not config.steps:
        raise UserError("The pipeline has no steps; give a --config with some, such as jobs/pipeline.yaml.")
    known = set(config.variables) | {"out"}
    for name, spec in config.steps.items():
        if missing := sorted(references(spec.config) - known):
            raise UserError(
                f"Step {name!r} refers to {missing}, which is neither an earlier step nor a variable; known here: "
                f"{sorted(known)}. Add --variables.{missing[0]} or move the step down."
            )
        if name in known:
            raise UserError(f"{name!r} names both a step and a variable (or twice a step); rename one.")
        prepare(spec.verb, spec.config)
        known.add(name)


def run_pipeline(config: PipelineConfig, prepare: Prepare) -> StepResult:
    """Runs the steps in order and writes `report.json` and `report.md` under `out`.

    Raises:
        UserError: the pipeline cannot work as it is written (nothing has run then), or a step says so.
    """
    config = with_changes(config)
    check(config, prepare)
    out = storage.absolute(config.out)
    known = {name: storage.absolute(text) if storage.exists(text) else text for name, text in config.variables.items()}
    with keep_ray(config.ray):
        outcomes = run_steps(config.steps, prepare, out, known)
    return _report(out, outcomes)


def run_steps(
    steps: Mapping[str, StepSpec], prepare: Prepare, out: str, variables: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Runs steps in order and returns what each printed, with its name and seconds; finished ones are skipped.

    Args:
        steps: by name; `${name}` in a configuration is the folder of an earlier step, a variable, or `out`.
        prepare: makes a verb's configuration and finds what runs it.
        out: where the steps' folders lie.
        variables: texts by name.
    """
    known = {**(variables or {}), "out": out}
    outcomes: list[dict[str, Any]] = []
    for number, (name, spec) in enumerate(steps.items(), 1):
        log.info("[%d/%d] %s (%s). %s", number, len(steps), name, spec.verb, spec.why)
        began = time.perf_counter()
        step_config, runner = prepare(spec.verb, {"out": out, **substitute(spec.config, known)})
        result = runner(step_config)
        known[name] = result.path
        seconds = round(time.perf_counter() - began, 1)
        log.info("[%d/%d] %s %s", number, len(steps), name, ending(result.skipped, seconds))
        outcomes.append({"name": name, "seconds": seconds, **json.loads(result.as_json())})
    return outcomes


def ending(skipped: bool, seconds: float) -> str:
    """How a progress line says that a step is over."""
    return "was done before, skipped" if skipped else f"done in {seconds:.1f} s"


def _report(out: str, outcomes: list[dict[str, Any]]) -> StepResult:
    skipped = all(outcome["skipped"] for outcome in outcomes)
    path = storage.join(out, "report.json")
    if not (skipped and storage.exists(path)):  # a run that did nothing keeps the times of the run that did
        storage.write_json(path, {"git_commit": git_commit(), "steps": outcomes})
        storage.write_atomic(storage.join(out, "report.md"), markdown(outcomes).encode())
    summary = {
        "steps": len(outcomes),
        "skipped_steps": sum(outcome["skipped"] for outcome in outcomes),
        "results": {outcome["name"]: outcome["path"] for outcome in outcomes},
        "report": storage.join(out, "report.md"),
    }
    return StepResult("pipeline", out, skipped, summary)


def numbers(outcome: Mapping[str, Any]) -> dict[str, int | float]:
    """What a step measured or counted, as far as it is one number each."""
    hidden = {"seconds", "skipped"}
    pairs = outcome.items()
    return {
        key: value
        for key, value in pairs
        if isinstance(value, int | float) and not isinstance(value, bool) and key not in hidden
    }


def result_of(outcome: Mapping[str, Any]) -> list[str]:
    """What a step measured or counted, as words; first what its numbers rest on, where the step says so."""
    texts = [f"{key} {format_number(value)}" for key, value in numbers(outcome).items()]
    return [str(outcome["evidence"]), *texts] if "evidence" in outcome else texts


def markdown(outcomes: list[dict[str, Any]]) -> str:
    """The result table: a row a step."""
    lines = ["| step | verb | seconds | result |", "|---|---|---:|---|"]
    for outcome in outcomes:
        result = ", ".join(result_of(outcome))
        ending = "skipped" if outcome["skipped"] else f"{outcome['seconds']:.1f}"
        lines.append(f"| {outcome['name']} | {outcome['step']} | {ending} | {result} |")
    return "\n".join(lines) + "\n"


def format_number(value: int | float) -> str:
    """Counts in full, measures to four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
