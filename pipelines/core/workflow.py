"""Steps by name that refer to each other's folders: what a pipeline, a comparison and a sweep are made of.

A `${name}` inside a configuration's text stands for the result folder of the step of that name, or for a variable.
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
    """One step of a pipeline."""

    verb: str
    """The verb that runs it, such as precompute."""
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The verb's configuration, as in its own YAML; ${name} stands for another step's folder or a variable."""
    why: str = ""
    """One sentence for the person who watches: what this step is for."""


Runner = Callable[[Any], StepResult]
Prepare = Callable[[str, Mapping[str, Any]], tuple[Any, Runner]]
"""(verb, configuration as plain values) → (the typed configuration, what runs it); raises UserError on a bad one."""


def references(value: Any) -> set[str]:
    """Return the names that a configuration refers to."""
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


def run_steps(
    steps: Mapping[str, StepSpec], prepare: Prepare, out: str, variables: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Run steps in order and return what each printed, with its name and seconds; finished ones are skipped.

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
