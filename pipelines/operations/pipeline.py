"""All steps in order, wired by their names: what `jobs.pipeline` runs.

A pipeline is a mapping from a step's name to its verb and configuration. A `${name}` inside a configuration's text
stands for the result folder of the step of that name, or for one of the pipeline's variables; so the same file serves
the sample world and real data. Steps are skipped when done, each by its own manifest.
"""

import copy
import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import yaml

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.runtime import RayConfig, keep_ray
from pipelines.core.steps import StepResult, git_commit, runtime_group
from pipelines.core.workflow import Prepare, StepSpec, references, run_steps

log = logging.getLogger("lion.pipeline")


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


def with_changes(config: PipelineConfig) -> PipelineConfig:
    """Return the pipeline with what `set` changes in its steps.

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
    """Refuse a pipeline that could only fail later: an unknown verb, key or name, or a step that refers forwards.

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
    """Run the steps in order and write `report.json` and `report.md` under `out`.

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
    """Return the result table: a row a step."""
    lines = ["| step | verb | seconds | result |", "|---|---|---:|---|"]
    for outcome in outcomes:
        result = ", ".join(result_of(outcome))
        ending = "skipped" if outcome["skipped"] else f"{outcome['seconds']:.1f}"
        lines.append(f"| {outcome['name']} | {outcome['step']} | {ending} | {result} |")
    return "\n".join(lines) + "\n"


def format_number(value: int | float) -> str:
    """Count in full, measures to four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
