"""All checks of the doctor, cheap ones first."""

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.core import storage
from pipelines.core.config_files import read_config
from pipelines.core.errors import UserError
from pipelines.core.runtime import live_nodes, ray_session
from pipelines.core.workflow import Prepare, merged
from pipelines.operations.doctor.config import DoctorConfig
from pipelines.operations.doctor.cost import cost_findings
from pipelines.operations.doctor.environment import cpu_finding, driver_findings, package_findings
from pipelines.operations.doctor.findings import Finding
from pipelines.operations.doctor.job import job_findings
from pipelines.operations.doctor.nodes import node_findings, probe_nodes

_REQUIREMENTS = Path(__file__).resolve().parents[3] / "requirements.txt"


def examine(config: DoctorConfig, prepare: Prepare) -> Iterator[Finding]:
    """Check the environment and, if a verb is configured, the job; yield each finding as soon as it is ready.

    Raises:
        UserError: the job's file or a rate cannot be read.
    """
    values = job_values(config)
    if _REQUIREMENTS.exists():
        yield from package_findings(_REQUIREMENTS.read_text())
    yield from driver_findings(config)
    yield from cost_findings(config.cost)
    # Without Ray, the findings above are still useful, so its absence is a finding, not an error.
    try:
        with ray_session(config.ray):
            yield from _on_ray(config, prepare, values)
    except UserError as error:
        yield Finding("Ray", "problem", str(error))


def job_values(config: DoctorConfig) -> dict[str, Any]:
    """Return the job's configuration as plain values: the content of its file, updated with `settings`.

    Raises:
        UserError: the file does not exist or is not a mapping, or there is a configuration but no verb.
    """
    values: dict[str, Any] = {}
    if config.file is not None:
        if not storage.exists(config.file):
            raise UserError(f"{config.file} does not exist; give the job's YAML as --file.")
        values = read_config(config.file)
        if not isinstance(values, dict):
            raise UserError(f"{config.file} has no mapping of fields; give the job's YAML as --file.")
    values = merged({"out": config.out}, merged(values, config.settings))
    if not config.verb and (config.file is not None or config.settings):
        raise UserError("--file or --settings is set without --verb; name the job by --verb, such as train_stage.")
    return values


def _on_ray(config: DoctorConfig, prepare: Prepare, values: dict[str, Any]) -> Iterator[Finding]:
    import ray
    import torch

    nodes = [node for node in ray.nodes() if node["Alive"]]
    yield cpu_finding(ray.cluster_resources())
    driver = {"python": platform.python_version(), "ray": ray.__version__, "torch": torch.__version__}
    yield from node_findings(config, probe_nodes(config, nodes), driver)
    if config.verb:
        yield from job_findings(config.verb, values, prepare, live_nodes())
