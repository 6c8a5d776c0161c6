"""`jobs.pipeline`: all steps in order, connected by their names.

A pipeline maps the name of each step to a verb and its configuration. `${name}` in a configuration is replaced by the
result folder of the step with that name, or by a variable of the pipeline. So one file serves the sample world and real
data. Each step skips itself if its manifest shows that it is done.
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
    """Run every step of a pipeline in order; skip finished steps."""

    steps: dict[str, StepSpec] = dataclasses.field(default_factory=dict)
    """Steps by name, in the order in which they run."""
    variables: dict[str, str] = path_field("name", default_factory=dict)
    """Texts by name for ${name} in the steps' configurations, such as {images: /data/coco}."""
    set: list[str] = dataclasses.field(default_factory=list)
    """Changes of single fields of steps as `step.field=value`, such as `tagged.tagger.kind=table`."""
    out: str = path_field("output", "runs")
    """Folder or URI for the step folders and the report."""
    ray: RayConfig = runtime_group(RayConfig)


def with_changes(config: PipelineConfig) -> PipelineConfig:
    """Return the pipeline with the changes of `set` applied to its steps.

    Raises:
        UserError: a change does not have the form `step.field=value`, or names an unknown step.
    """
    configs = {name: copy.deepcopy(spec.config) for name, spec in config.steps.items()}
    for change in config.set:
        path, equals, text = change.partition("=")
        name, *keys = path.split(".")
        if not (equals and keys):
            raise UserError(f"--set takes step.field=value, such as tagged.tagger.kind=table, not {change!r}.")
        if name not in configs:
            raise UserError(f"--set {change!r} names no step of this pipeline; use one of {list(configs)}.")
        group = configs[name]
        for key in keys[:-1]:
            group = group.setdefault(key, {})
        group[keys[-1]] = yaml.safe_load(text)
    steps = {name: dataclasses.replace(spec, config=configs[name]) for name, spec in config.steps.items()}
    return dataclasses.replace(config, steps=steps, set=[])


def check(config: PipelineConfig, prepare: Prepare) -> None:
    """Check the whole pipeline before any step runs.

    Raises:
        UserError: a verb, key or name is unknown, a step refers to a later one, or a name is used twice.
    """
    if not config.steps:
        raise UserError("The pipeline has no steps; give a --config with steps, such as jobs/pipeline.yaml.")
    names = set(config.variables) | {"out"}
    for name, spec in config.steps.items():
        if missing := sorted(references(spec.config) - names):
            raise UserError(
                f"Step {name!r} refers to {missing}, which is neither an earlier step nor a variable; available names: "
                f"{sorted(names)}. Add --variables.{missing[0]} or move the step down."
            )
        if name in names:
            raise UserError(f"{name!r} names both a step and a variable, or two steps; rename one.")
        prepare(spec.verb, spec.config)
        names.add(name)  # after the check, so that a step can only refer to earlier ones


def run_pipeline(config: PipelineConfig, prepare: Prepare) -> StepResult:
    """Run the steps in order and write `report.json` and `report.md` under `out`.

    Raises:
        UserError: the pipeline is invalid (no step has run then), or a step raised it.
    """
    config = with_changes(config)
    check(config, prepare)
    out = storage.absolute(config.out)
    variables = {
        name: storage.absolute(text) if storage.exists(text) else text for name, text in config.variables.items()
    }
    with keep_ray(config.ray):
        outcomes = run_steps(config.steps, prepare, out, variables)
    return _write_report(out, outcomes)


def _write_report(out: str, outcomes: list[dict[str, Any]]) -> StepResult:
    """Write the report and return the pipeline's result."""
    skipped = all(outcome["skipped"] for outcome in outcomes)
    path = storage.join(out, "report.json")
    # If every step was skipped, the old report stays, because it has the times of the run that did the work.
    if not (skipped and storage.exists(path)):
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
    """Return the single numbers in a step's JSON line, by name, without its seconds."""
    hidden = {"seconds", "skipped"}
    pairs = outcome.items()
    return {
        key: value
        for key, value in pairs
        if isinstance(value, int | float) and not isinstance(value, bool) and key not in hidden
    }


def result_texts(outcome: Mapping[str, Any]) -> list[str]:
    """Return the numbers of a step as texts such as `rows 240`; first its evidence, such as `one seed: a hint`."""
    texts = [f"{key} {format_number(value)}" for key, value in numbers(outcome).items()]
    return [str(outcome["evidence"]), *texts] if "evidence" in outcome else texts


def markdown(outcomes: list[dict[str, Any]]) -> str:
    """Return the result table in Markdown, with one row per step."""
    lines = ["| step | verb | seconds | result |", "|---|---|---:|---|"]
    for outcome in outcomes:
        result = ", ".join(result_texts(outcome))
        seconds = "skipped" if outcome["skipped"] else f"{outcome['seconds']:.1f}"
        lines.append(f"| {outcome['name']} | {outcome['step']} | {seconds} | {result} |")
    return "\n".join(lines) + "\n"


def format_number(value: int | float) -> str:
    """Return a count in full, or a measurement with four significant digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
