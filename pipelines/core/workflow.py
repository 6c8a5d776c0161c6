"""Named steps that refer to each other's result folders: the parts of a pipeline, a comparison and a sweep.

In the text of a configuration, `${name}` is replaced by the result folder of the step `name`, or by a variable.
"""

import dataclasses
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.core.steps import StepResult

log = logging.getLogger("lion.pipeline")
_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*)\}")


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """A step of a pipeline."""

    verb: str
    """The verb to run, such as precompute."""
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The verb's configuration, as in its YAML file. ${name} is replaced by an earlier step's folder or a variable."""
    why: str = ""
    """The purpose of the step in one sentence, which is logged when the step starts."""


Runner = Callable[[Any], StepResult]
Prepare = Callable[[str, Mapping[str, Any]], tuple[Any, Runner]]
"""(verb, configuration as plain values) → (typed configuration, function that runs it). Raises UserError if the
configuration is invalid."""


def references(value: Any) -> set[str]:
    """Return the names of all `${name}` in a configuration."""
    if isinstance(value, str):
        return set(_REFERENCE.findall(value))
    if isinstance(value, Mapping):
        return set().union(*map(references, value.values())) if value else set()
    if isinstance(value, list | tuple):
        return set().union(*map(references, value)) if value else set()
    return set()


def substitute(value: Any, values: Mapping[str, str]) -> Any:
    """Return a configuration with every `${name}` replaced by its value; unknown names stay unchanged."""
    if isinstance(value, str):
        return _REFERENCE.sub(lambda match: values.get(match[1], match[0]), value)
    if isinstance(value, Mapping):
        return {key: substitute(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [substitute(item, values) for item in value]
    return value


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` updated with `changes`; nested mappings are merged at any depth."""
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def run_steps(
    steps: Mapping[str, StepSpec], prepare: Prepare, out: str, variables: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Run steps in order and return the JSON line of each, with its name and seconds. Finished steps are skipped.

    Args:
        steps: the steps by name; `${name}` in a configuration is the folder of an earlier step, a variable, or `out`.
        prepare: returns a verb's typed configuration and the function that runs it.
        out: the parent folder or URI of the steps' folders.
        variables: the values of further names.
    """
    values = {**(variables or {}), "out": out}
    outcomes: list[dict[str, Any]] = []
    for number, (name, spec) in enumerate(steps.items(), 1):
        log.info("[%d/%d] %s (%s). %s", number, len(steps), name, spec.verb, spec.why)
        began = time.perf_counter()
        step_config, runner = prepare(spec.verb, {"out": out, **substitute(spec.config, values)})
        result = runner(step_config)
        values[name] = result.path
        seconds = round(time.perf_counter() - began, 1)
        log.info("[%d/%d] %s %s", number, len(steps), name, completion_text(result.skipped, seconds))
        outcomes.append({"name": name, "seconds": seconds, **json.loads(result.as_json())})
    return outcomes


def completion_text(skipped: bool, seconds: float) -> str:
    """Return the end of the progress line of a finished step."""
    return "was done before, skipped" if skipped else f"done in {seconds:.1f} s"
