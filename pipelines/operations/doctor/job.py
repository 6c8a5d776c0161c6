"""The job: whether its configuration is right, its inputs are there, and its plan fits the cluster."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.paths import config_paths
from pipelines.core.resources import LaunchConfig, resolve_launch, workers_that_fit
from pipelines.core.workflow import Prepare, substitute
from pipelines.operations.doctor.findings import Finding, refused
from pipelines.registry import Registry

Nodes = Sequence[Mapping[str, Any]]
_POINTER = 1024  # bytes; git LFS leaves about 130 in the place of a large file


def job_findings(
    verb: str, values: Mapping[str, Any], prepare: Prepare, nodes: Nodes, name: str = ""
) -> Iterator[Finding]:
    """What there is to say of a job, of a pipeline step by step.

    Args:
        verb: of the job.
        values: its configuration as plain values.
        prepare: makes the configuration of a verb and finds what runs it.
        nodes: the resources of each living node.
        name: of the step.
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
    missing = list(_missing(settings))
    inputs = Finding(f"{about}: inputs", "ok", "all there")
    yield from (Finding(f"{about}: inputs", "problem", one) for one in missing) if missing else [inputs]
    plan = _PLANS.get(verb)
    if plan is not None:
        yield refused(f"{about}: plan", lambda: plan(settings, nodes))


def _pipeline_findings(values: Mapping[str, Any], prepare: Prepare, nodes: Nodes) -> Iterator[Finding]:
    variables = {str(name): str(text) for name, text in dict(values.get("variables", {})).items()}
    steps = dict(values.get("steps", {}))
    if not steps:
        yield Finding("pipeline", "problem", "it has no steps; give --file jobs/pipeline.yaml, or another one's file.")
    for name, spec in steps.items():
        config = substitute(spec.get("config", {}), variables)
        yield from job_findings(str(spec.get("verb", "")), config, prepare, nodes, name)


def _missing(settings: Any) -> Iterator[str]:
    """Return the inputs that are not there; what an earlier step will make is not looked for."""
    registry = Registry(settings.registry, settings.out) if hasattr(settings, "registry") else None
    for place in config_paths(settings):
        field, value = place.field, place.text
        if place.role == "output" or place.is_reference:
            continue
        if value.startswith("models:"):
            if registry is not None:
                try:
                    registry.lookup(value)
                except UserError as error:
                    yield f"{field}: {error}"
        elif not value.startswith(("http://", "https://")):
            try:
                there = storage.exists(value)
            except (OSError, UserError) as error:
                yield f"{field}: {value} cannot be read ({error})."
                continue
            if not there and place.role == "name":
                continue
            if not there:
                yield f"{field}: {value} does not exist; correct the path, or make it by the verb before."
            elif _lacks_weights(value):
                yield (f"{field}: {value} has a model's config.json and no weights (*.safetensors); the copy was not "
                       "whole, or its large files are pointers of git LFS: fetch it again.")  # fmt: skip


def _lacks_weights(folder: str) -> bool:
    """Whether it is the folder of a model whose weights are not there, or too small to be any."""
    if storage.is_remote(folder) or not storage.exists(storage.join(folder, "config.json")):
        return False
    files = [name for ending in (".safetensors", ".bin") for name in storage.list_files(folder, ending)]
    return not any(os.path.getsize(name) > _POINTER for name in files)


def _training(settings: Any, nodes: Nodes) -> str:
    launch: LaunchConfig = settings.launch
    if launch.launcher == "local":
        return f"{launch.workers} processes on this machine, without Ray"
    asked = resolve_launch(launch, nodes)
    cpus, gpus = asked.cpus_per_worker, asked.gpus_per_worker
    wanted = "loop.precision fp16" if settings.loop.precision == "fp16" else "launch.gpu_memory"
    if not gpus and (settings.loop.precision == "fp16" or launch.gpu_memory is not None):
        raise UserError(f"{wanted} is for GPUs, and no node has one; give the cluster some, or leave that field out.")
    room = workers_that_fit(asked, nodes, 0.0)
    said = f"{launch.workers} workers of {cpus} CPUs and {gpus:g} GPUs"
    if room < launch.fewest:
        raise UserError(
            f"{said} are asked for, and the nodes have room for {room}; lower launch.workers or "
            "launch.cpus_per_worker, or add nodes: until then the training would wait for ever."
        )
    return f"{said}; there is room for {room}"


def _precompute(settings: Any, nodes: Nodes) -> str:
    from pipelines.precompute.plan import make_plan, require_place
    from pipelines.precompute.taggers import make_tagger

    captioner = settings.captioner if settings.source.annotations else None
    plan = make_plan(settings.tagger, captioner, nodes, make_tagger(settings.tagger).needs_model)
    require_place(plan, nodes)
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
    return f"{trials_at_once(launch, nodes, settings.concurrent)} trials at once"


_PLANS: dict[str, Callable[[Any, Nodes], str]] = {
    "train_tag_encoder": _training,
    "train_stage": _training,
    "precompute": _precompute,
    "evaluate": _evaluate,
    "sweep": _sweep,
}
