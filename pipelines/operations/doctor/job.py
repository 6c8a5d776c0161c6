"""Checks of a job: its configuration is valid, its inputs exist, and its plan fits the cluster."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.paths import config_paths
from pipelines.core.resources import LaunchConfig, resolve_launch, workers_that_fit
from pipelines.core.workflow import Prepare, substitute
from pipelines.operations.doctor.findings import Finding, problems_or_ok, run_check
from pipelines.registry import Registry

Nodes = Sequence[Mapping[str, Any]]
_POINTER = 1024  # bytes; a git LFS pointer file, which replaces a large file, has about 130


def job_findings(
    verb: str, values: Mapping[str, Any], prepare: Prepare, nodes: Nodes, name: str = ""
) -> Iterator[Finding]:
    """Yield the findings of a job; for a pipeline, those of each step.

    Args:
        verb: the job's verb.
        values: its configuration as plain values.
        prepare: returns a verb's typed configuration and its runner.
        nodes: the resources of each living node.
        name: name of the step in a pipeline; empty for a single job.
    """
    if verb == "pipeline":
        yield from _pipeline_findings(values, prepare, nodes)
        return
    about = name or verb
    try:
        settings, _ = prepare(verb, values)
    except UserError as error:
        yield Finding(f"{about}: configuration", "problem", str(error))
        return
    yield Finding(f"{about}: configuration", "ok", "accepted")
    yield from problems_or_ok(f"{about}: inputs", list(_input_problems(settings)), "all exist")
    plan = _PLANS.get(verb)
    if plan is not None:
        yield run_check(f"{about}: plan", lambda: plan(settings, nodes))


def _pipeline_findings(values: Mapping[str, Any], prepare: Prepare, nodes: Nodes) -> Iterator[Finding]:
    variables = {str(name): str(text) for name, text in dict(values.get("variables", {})).items()}
    steps = dict(values.get("steps", {}))
    if not steps:
        yield Finding(
            "pipeline", "problem", "it has no steps; give --file jobs/pipeline.yaml, or another pipeline's file."
        )
    for name, spec in steps.items():
        config = substitute(spec.get("config", {}), variables)
        yield from job_findings(str(spec.get("verb", "")), config, prepare, nodes, name)


def _input_problems(settings: Any) -> Iterator[str]:
    """Yield a message for each missing or unusable input. Results of earlier steps are not checked."""
    registry = Registry(settings.registry, settings.out) if hasattr(settings, "registry") else None
    for path in config_paths(settings):
        field, value = path.field, path.text
        if path.role == "output" or path.is_reference:
            continue
        if value.startswith("models:"):
            if registry is not None:
                try:
                    registry.lookup(value)
                except UserError as error:
                    yield f"{field}: {error}"
        elif not value.startswith(("http://", "https://")):
            try:
                exists = storage.exists(value)
            except (OSError, UserError) as error:
                yield f"{field}: {value} cannot be read ({error})."
                continue
            if not exists and path.role == "name":  # may be the name of a model on the Hub
                continue
            if not exists:
                yield f"{field}: {value} does not exist; correct the path, or run the verb that writes it."
            elif _lacks_weights(value):
                yield (f"{field}: {value} has a model's config.json but no weights (*.safetensors): the copy is "
                       "incomplete, or its large files are git LFS pointers. Fetch it again.")  # fmt: skip


def _lacks_weights(folder: str) -> bool:
    """Return whether a folder has a model's config.json but no weights file larger than a git LFS pointer."""
    if storage.is_remote(folder) or not storage.exists(storage.join(folder, "config.json")):
        return False
    files = [name for ending in (".safetensors", ".bin") for name in storage.list_files(folder, ending)]
    return not any(os.path.getsize(name) > _POINTER for name in files)


def _training(settings: Any, nodes: Nodes) -> str:
    launch: LaunchConfig = settings.launch
    if launch.launcher == "local":
        return f"{launch.workers} processes on this machine, without Ray"
    resolved = resolve_launch(launch, nodes)
    cpus, gpus = resolved.cpus_per_worker, resolved.gpus_per_worker
    gpu_field = "loop.precision fp16" if settings.loop.precision == "fp16" else "launch.gpu_memory"
    if not gpus and (settings.loop.precision == "fp16" or launch.gpu_memory is not None):
        raise UserError(f"{gpu_field} is for GPUs, but no node has one; add GPUs to the cluster, or remove that field.")
    fitting = workers_that_fit(resolved, nodes, 0.0)
    request = f"{launch.workers} workers of {cpus} CPUs and {gpus:g} GPUs"
    if fitting < launch.fewest:
        raise UserError(
            f"{request} are requested, but the nodes have room for {fitting}; lower launch.workers or "
            "launch.cpus_per_worker, or add nodes. Otherwise the training waits forever."
        )
    return f"{request}; there is room for {fitting}"


def _precompute(settings: Any, nodes: Nodes) -> str:
    from pipelines.precompute.plan import check_fit, make_plan
    from pipelines.precompute.taggers import make_tagger

    captioner = settings.captioner if settings.source.annotations else None
    plan = make_plan(settings.tagger, captioner, nodes, make_tagger(settings.tagger).needs_model)
    check_fit(plan, nodes)
    return f"{plan}"


def _evaluate(settings: Any, nodes: Nodes) -> str:
    from pipelines.evaluation.distributed import plan_pool

    if settings.inference.launcher == "local":
        return "this process, without Ray"
    return f"{plan_pool(settings.inference)}"


def _sweep(settings: Any, nodes: Nodes) -> str:
    from pipelines.sweeps.config import check
    from pipelines.sweeps.tuning import resolved_launch, trials_at_once

    check(settings)
    launch = resolved_launch(LaunchConfig(**settings.training.get("launch", {})), nodes)
    return f"{trials_at_once(launch, nodes, settings.concurrent)} trials at the same time"


_PLANS: dict[str, Callable[[Any, Nodes], str]] = {
    "train_tag_encoder": _training,
    "train_stage": _training,
    "precompute": _precompute,
    "evaluate": _evaluate,
    "sweep": _sweep,
}
