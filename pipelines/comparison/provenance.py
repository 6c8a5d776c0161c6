"""Provenance of a comparison: its trainings, the code version, and the machine."""

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.comparison.config import CompareConfig
from pipelines.comparison.plan import ComparisonPlan, Run
from pipelines.comparison.results import Document
from pipelines.core import storage
from pipelines.core.steps import canonical, git_commit, read_manifest, versions
from pipelines.registry import Registry
from pipelines.training.config import TrainStageConfig


def hardware() -> dict[str, str]:
    """Return a description of this machine: platform, cores, GPUs and, if known, processor and memory."""
    description = {"machine": platform.platform(), "cores": str(os.cpu_count())}
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            description["processor"] = line.partition(":")[2].strip()
            break
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal"):
            description["memory"] = f"{int(line.split()[1]) / 2**20:.1f} GiB"
    gpus = "/proc/driver/nvidia/gpus"
    names = [
        line.partition(":")[2].strip()
        for gpu in (sorted(os.listdir(gpus)) if os.path.isdir(gpus) else [])
        for line in _lines(os.path.join(gpus, gpu, "information"))
        if line.startswith("Model")
    ]
    description["GPUs"] = ", ".join(names) or "none"
    return description


def code() -> dict[str, str]:
    """Return the git commit and the versions of the libraries that the numbers depend on."""
    return {"commit": git_commit() or "unknown", **versions()}


def training(folder: str, settings: TrainStageConfig, outcome: Mapping[str, Any]) -> Document:
    """Return the report's entry of one training: model, steps, samples, trained parameters and validation loss.

    Args:
        folder: folder of the finished step.
        settings: configuration of the step.
        outcome: the JSON object that the step printed.
    """
    manifest = read_manifest(folder)
    return {
        "registered": outcome["registered"],
        "steps": outcome["steps"],
        "samples": manifest["rows"],
        "batch_size": settings.loop.batch_size,
        "groups": settings.trained_groups,
        "parameters": count_trained(storage.join(folder, "model"), settings.trained_groups),
        "validation_loss": manifest["metrics"].get("validation_loss"),
        "commit": manifest["git_commit"],
        "folder": folder,
    }


def trainings(plan: ComparisonPlan, outcomes: Mapping[str, Mapping[str, Any]]) -> dict[str, Document]:
    """Return the report's entries of all trainings, by the name of the step."""
    return {name: training(str(outcome["path"]), plan.settings[name], outcome) for name, outcome in outcomes.items()}


def histories(runs: Mapping[Run, str], arms: Sequence[str], seeds: Sequence[int]) -> dict[str, list[list[Document]]]:
    """Return the records of each run's training, by arm and seed.

    Args:
        runs: folder of each run's last training.
        arms: names of the arms, in order.
        seeds: the seeds, in order.
    """
    return {arm: [read_history(runs[Run(arm, seed)]) for seed in seeds] for arm in arms}


def tag_encoders(references: Sequence[str], registry: Registry) -> dict[str, list[Document]]:
    """Return the training records of tag encoders, by reference. Encoders without `metrics.jsonl` are left out.

    Args:
        references: folders, or models:/NAME@ALIAS. A registered version has its step's folder in the tag `step`.
        registry: the registry of the registered encoders.
    """
    records = {}
    for reference in references:
        model = registry.lookup(reference)
        folder = os.path.dirname(model.folder)
        if model.name is not None:
            tags = registry.client.get_model_version(model.name, str(model.version)).tags
            folder = tags.get("step", folder)
        if storage.exists(storage.join(folder, "metrics.jsonl")):
            records[reference if model.name is None else str(model)] = read_history(folder)
    return records


def as_yaml(config: CompareConfig) -> str:
    """Return the configuration as YAML for `jobs.compare`: with paths, without the settings of the runtime."""
    import yaml

    return yaml.safe_dump(canonical(config), sort_keys=False, allow_unicode=True, width=110)


def read_history(folder: str) -> list[Document]:
    """Return the records of `metrics.jsonl` in a training's folder."""
    text = storage.read_bytes(storage.join(folder, "metrics.jsonl")).decode()
    return [json.loads(line) for line in text.splitlines()]


def count_trained(model: str, groups: Sequence[str]) -> int | None:
    """Count the parameters of a saved LION that belong to the groups.

    Only the headers of the weight files are read, so no weights are loaded. Return None for a folder in an object
    store, whose files safetensors cannot open.
    """
    if storage.is_remote(model):
        return None
    from safetensors import safe_open

    from models.lion import parameter_group

    total = 0
    for name in storage.list_files(model, ".safetensors"):
        with safe_open(name, framework="pt") as stream:
            total += sum(
                math.prod(stream.get_slice(key).get_shape())
                for key in stream.keys()  # noqa: SIM118 (a handle, not a dict)
                if parameter_group(key) in groups
            )
    return total


def _lines(path: str) -> list[str]:
    """Return the lines of a system file; none if it cannot be read, because provenance must not stop a report."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().splitlines()
    except OSError:
        return []
