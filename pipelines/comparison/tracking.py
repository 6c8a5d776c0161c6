"""The comparison in MLflow: a run of its own with the report, and its numbers on every arm's model versions."""

import json
from collections.abc import Mapping, Sequence

from pipelines.comparison.config import CompareConfig
from pipelines.comparison.plan import Run
from pipelines.comparison.results import Document
from pipelines.core import storage
from pipelines.core.steps import StepFolder, canonical, git_commit
from pipelines.evaluation.tracking import log_numbers, mlflow_name
from pipelines.registry import Registry


def log_comparison(
    registry: Registry, folder: StepFolder, config: CompareConfig, document: Document, models: Mapping[Run, str],
    artifacts: Sequence[str],
) -> str:  # fmt: skip
    """Log everything and return the run's id; doing so again after a crash changes nothing.

    Args:
        registry: which MLflow.
        folder: of the comparison.
        config: what was compared.
        document: its numbers.
        models: models:/NAME/VERSION of every run.
        artifacts: files of the folder that belong to the run.
    """
    client = registry.client
    tags = {"git_commit": str(git_commit()), "evidence": document["evidence"]}
    run_id = registry.open_run("compare", folder.hash, canonical(config), tags)
    by_arm = {arm: arm_numbers(document, arm) for arm in document["arms"]}
    for arm, numbers in by_arm.items():
        for name, value in numbers.items():
            client.log_metric(run_id, mlflow_name(f"{arm}/{name}"), value)
    for name in artifacts:
        client.log_text(run_id, storage.read_bytes(folder.child(name)).decode(), name)
    for run, model in models.items():
        reference = registry.lookup(model)
        by_seed = document["decoding"][run.arm]
        place = list(document["seeds"]).index(run.seed) if len(by_seed) > 1 else 0
        tags = {
            "arm": run.arm,
            "seed": str(run.seed),
            "baseline": document["baseline"],
            "evidence": document["evidence"],
            "decoding": json.dumps(by_seed[place]),
            "result": folder.path,
        }
        for name, text in tags.items():
            client.set_model_version_tag(str(reference.name), str(reference.version), f"compare.{name}", text)
        log_numbers(registry, reference, {f"compare.{name}": value for name, value in by_arm[run.arm].items()})
    registry.close_run(run_id)
    return run_id


def arm_numbers(document: Document, arm: str) -> dict[str, float]:
    """An arm's numbers, flat: TASK.METRIC with its interval, its difference from the baseline, and both under noise.
    Without p-values where there were too few seeds for tests."""
    numbers: dict[str, float] = {}
    for group, found in document["groups"].items():
        name = f"{group}.{found['primary']}"
        ends = ("value", "low", "high")
        numbers |= {f"{name}.{end}": found["arms"][arm][end] for end in ends}
        if arm in found["effects"]:
            effect = found["effects"][arm]
            measured = {key: effect[key] for key in (*ends, "p", "p_holm", "smallest_seen") if effect[key] is not None}
            numbers |= {f"{name}.difference.{key}": value for key, value in measured.items()}
        for level in found["noise"]:
            if level["strength"]:
                numbers[f"{name}.tag_noise_{level['strength']:g}"] = level["arms"][arm]["value"]
    return numbers
