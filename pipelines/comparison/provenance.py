"""How a comparison was made: its trainings, the code, and the machine."""

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.comparison.config import CompareConfig
from pipelines.comparison.plan import Plan, Run
from pipelines.comparison.results import Document
from pipelines.core import storage
from pipelines.core.steps import canonical, git_commit, read_manifest, versions
from pipelines.registry import Registry
from pipelines.training.config import TrainStageConfig


def hardware() -> dict[str, str]:
    """Return the machine that this process runs on, as far as it says what it is."""
    found = {"machine": platform.platform(), "cores": str(os.cpu_count())}
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            found["processor"] = line.partition(":")[2].strip()
            break
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal"):
            found["memory"] = f"{int(line.split()[1]) / 2**20:.1f} GiB"
    gpus = "/proc/driver/nvidia/gpus"
    names = [
        line.partition(":")[2].strip()
        for one in (sorted(os.listdir(gpus)) if os.path.isdir(gpus) else [])
        for line in _lines(os.path.join(gpus, one, "information"))
        if line.startswith("Model")
    ]
    found["GPUs"] = ", ".join(names) or "none"
    return found


def code() -> dict[str, str]:
    """Return the commit and the versions of what the numbers depend on."""
    return {"commit": git_commit() or "unknown", **versions()}


def training(folder: str, settings: TrainStageConfig, outcome: Mapping[str, Any]) -> Document:
    """One training: what was trained, how long, and where its model is.

    Args:
        folder: of the finished step.
        settings: its configuration.
        outcome: what the step printed.
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


def trainings(plan: Plan, outcomes: Mapping[str, Mapping[str, Any]]) -> dict[str, Document]:
    """Return every training by its step's name."""
    return {name: training(str(found["path"]), plan.settings[name], found) for name, found in outcomes.items()}


def histories(runs: Mapping[Run, str], arms: Sequence[str], seeds: Sequence[int]) -> dict[str, list[list[Document]]]:
    """Return the records of each run's training, by arm and seed.

    Args:
        runs: the folder of each run's last training.
        arms: in which order.
        seeds: in which order.
    """
    return {arm: [read_history(runs[Run(arm, seed)]) for seed in seeds] for arm in arms}


def tag_encoders(references: Sequence[str], registry: Registry) -> dict[str, list[Document]]:
    """Return the records of the trainings of tag encoders, by reference; without those whose training left none.

    Args:
        references: folders, or models:/NAME@ALIAS; a registered version names its step's folder.
        registry: where the registered ones are.
    """
    found = {}
    for reference in references:
        model = registry.lookup(reference)
        folder = os.path.dirname(model.folder)
        if model.name is not None:
            tags = registry.client.get_model_version(model.name, str(model.version)).tags
            folder = tags.get("step", folder)
        if storage.exists(storage.join(folder, "metrics.jsonl")):
            found[reference if model.name is None else str(model)] = read_history(folder)
    return found


def as_yaml(config: CompareConfig) -> str:
    """Return the configuration as a file of `jobs.compare`, places included, without the settings of how it was run."""
    import yaml

    return yaml.safe_dump(canonical(config), sort_keys=False, allow_unicode=True, width=110)


def read_history(folder: str) -> list[Document]:
    """Return a training's records, as `metrics.jsonl` of its folder has them."""
    text = storage.read_bytes(storage.join(folder, "metrics.jsonl")).decode()
    return [json.loads(line) for line in text.splitlines()]


def count_trained(model: str, groups: Sequence[str]) -> int | None:
    """Parameters of a LION's folder that belong to the groups, by what its weights file says; none are loaded. None for
    a folder of an object store."""
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
    """Return the lines of a file of the system; none where there is no such file."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().splitlines()
    except OSError:
        return []
