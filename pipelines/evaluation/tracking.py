"""Numbers about a registered model, where whoever looks at the model in MLflow finds them."""

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
    """Number about a version: as metrics of its model, and as its tags, which searches can filter by.

    Args:
        registry: where the version is.
        reference: as `Registry.lookup` gives it.
        numbers: by name; see `mlflow_name`.
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
    """Write the effective settings of decoding beside a version's numbers: a tag `PREFIX.decoding`, as JSON.

    Args:
        registry: where the version is.
        reference: as `Registry.lookup` gives it.
        prefix: what the names of the numbers begin with.
        settings: as `metrics.json` has them.
    """
    key = mlflow_name(f"{prefix}.decoding")
    registry.client.set_model_version_tag(str(reference.name), str(reference.version), key, json.dumps(settings))


def logged_model(registry: "Registry", reference: "ModelReference") -> str | None:
    """Return the id of the model that a version was made of; None where its run logged none.

    MLflow's SQL store does not keep it with the version, but the version's source is where the model lies.
    """
    client = registry.client
    source = client.get_model_version(str(reference.name), str(reference.version)).source
    outputs = client.get_run(str(reference.run_id)).outputs
    ids = [output.model_id for output in outputs.model_outputs] if outputs else []
    return next((found for found in ids if client.get_logged_model(found).artifact_location == source), None)


def mlflow_name(name: str) -> str:
    """Return a name of a metric or a tag in the letters that MLflow takes: `acc@0.5` becomes `acc_at_0.5`."""
    for sign, spelled in _SPELLED.items():
        name = name.replace(sign, spelled)
    return _NOT_IN_NAMES.sub("_", name)
