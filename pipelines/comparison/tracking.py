"""Log a comparison to MLflow: a separate run with the report, and its numbers on every arm's model versions."""

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
    """Log the comparison and return the id of its MLflow run. A second call, after a crash, changes nothing.

    Args:
        registry: the MLflow registry.
        folder: the folder of the comparison.
        config: the comparison's configuration.
        document: the comparison's numbers.
        models: the registered model of every run, as models:/NAME/VERSION.
        artifacts: names of files in the folder that are attached to the MLflow run.
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
        index = list(document["seeds"]).index(run.seed) if len(by_seed) > 1 else 0
        tags = {
            "arm": run.arm,
            "seed": str(run.seed),
            "baseline": document["baseline"],
            "evidence": document["evidence"],
            "decoding": json.dumps(by_seed[index]),
            "result": folder.path,
        }
        for name, text in tags.items():
            client.set_model_version_tag(str(reference.name), str(reference.version), f"compare.{name}", text)
        log_numbers(registry, reference, {f"compare.{name}": value for name, value in by_arm[run.arm].items()})
    registry.close_run(run_id)
    return run_id


def arm_numbers(document: Document, arm: str) -> dict[str, float]:
    """Return an arm's numbers as a flat mapping.

    Its keys are TASK.METRIC.value (.low, .high) for the arm, TASK.METRIC.difference.* for the difference from the
    baseline, and TASK.METRIC.tag_noise_STRENGTH. With too few seeds for tests there are no p-values.
    """
    numbers: dict[str, float] = {}
    for group, group_numbers in document["groups"].items():
        name = f"{group}.{group_numbers['primary']}"
        ends = ("value", "low", "high")
        numbers |= {f"{name}.{end}": group_numbers["arms"][arm][end] for end in ends}
        if arm in group_numbers["effects"]:
            effect = group_numbers["effects"][arm]
            measured = {key: effect[key] for key in (*ends, "p", "p_holm", "smallest_seen") if effect[key] is not None}
            numbers |= {f"{name}.difference.{key}": value for key, value in measured.items()}
        for level in group_numbers["noise"]:
            if level["strength"]:
                numbers[f"{name}.tag_noise_{level['strength']:g}"] = level["arms"][arm]["value"]
    return numbers
