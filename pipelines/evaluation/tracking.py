"""Numbers about a registered model, shown with the model in MLflow."""

import json
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.registry import ModelReference, Registry

_SPELLED = {"@": "_at_", "+": "plus"}
_NOT_IN_NAMES = re.compile(r"[^\w.\- /]")


def log_numbers(registry: "Registry", reference: "ModelReference", numbers: Mapping[str, float]) -> None:
    """Log numbers about a version: as metrics of its model, and as tags of the version, which searches can filter by.

    Args:
        registry: the MLflow of the version.
        reference: the version, as `Registry.lookup` returns it.
        numbers: by name; names are rewritten by `mlflow_name`.
    """
    from mlflow.entities import Metric

    client, now = registry.client, int(time.time() * 1000)
    named = {mlflow_name(key): value for key, value in numbers.items()}
    for key, value in named.items():
        client.set_model_version_tag(str(reference.name), str(reference.version), key, repr(value))
    model_id = logged_model(registry, reference)
    metrics = [Metric(key, value, now, 0, model_id=model_id) for key, value in named.items()]
    client.log_batch(str(reference.run_id), metrics=metrics)


def log_decoding(
    registry: "Registry", reference: "ModelReference", prefix: str, settings: Mapping[str, Any] | None
) -> None:
    """Log the effective settings of decoding of a version's numbers: a tag `PREFIX.decoding`, as JSON.

    Args:
        registry: the MLflow of the version.
        reference: the version, as `Registry.lookup` returns it.
        prefix: the start of the names of the numbers.
        settings: as in `metrics.json`.
    """
    key = mlflow_name(f"{prefix}.decoding")
    registry.client.set_model_version_tag(str(reference.name), str(reference.version), key, json.dumps(settings))


def logged_model(registry: "Registry", reference: "ModelReference") -> str | None:
    """Return the id of the logged model behind a version; None where its run logged no model.

    MLflow's SQL store does not keep the id with the version, but the version's source is the model's location.
    """
    client = registry.client
    source = client.get_model_version(str(reference.name), str(reference.version)).source
    outputs = client.get_run(str(reference.run_id)).outputs
    ids = [output.model_id for output in outputs.model_outputs] if outputs else []
    return next((model for model in ids if client.get_logged_model(model).artifact_location == source), None)


def mlflow_name(name: str) -> str:
    """Return a name of a metric or a tag in the characters that MLflow allows: `acc@0.5` becomes `acc_at_0.5`."""
    for sign, spelled in _SPELLED.items():
        name = name.replace(sign, spelled)
    return _NOT_IN_NAMES.sub("_", name)
