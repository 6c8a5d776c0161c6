"""Configuration of `jobs.doctor`. Only light imports, so that `--help` is fast."""

import dataclasses
from typing import Any

from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.runtime import RayConfig
from pipelines.core.steps import runtime_group
from pipelines.registry import RegistryConfig


@dataclasses.dataclass(frozen=True)
class CostConfig:
    """Cost estimate for the data, in hours and dollars, from measured rates."""

    images: int | None = None
    """Number of images to estimate for; empty: no estimate."""
    workers: int = 1
    """Number of workers that compute at the same time: GPUs, or processes on CPUs."""
    dollars_per_hour: float | None = None
    """Price of one worker for one hour, including its share of the machine; empty: the estimate ends with worker
    hours."""
    measured: list[str] = path_field("input", default_factory=list)
    """Folders of finished steps (precompute, train_tag_encoder, train_stage); their manifests have the measured
    rates. Example: '[runs/precompute-0123456789ab]'."""
    rates: str | None = path_field("input", None, sent=True)
    """YAML file with a list of rates from elsewhere; pipelines/operations/doctor/cost.py describes the fields."""

    def __post_init__(self) -> None:
        for name in ("images", "workers", "dollars_per_hour"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"cost.{name} is {value:g}; give a number above 0.")


@dataclasses.dataclass(frozen=True)
class DoctorConfig:
    """Check the environment of a job and, if a verb is given, whether the job can run in it."""

    verb: str = ""
    """Verb of the job, such as train_stage or pipeline; empty: check the environment only."""
    file: str | None = path_field("input", None, sent=True)
    """YAML file with the job's configuration."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of the job's configuration that replace those of the file, such as {launch: {workers: 8}}."""
    free_gib: float = 10.0
    """GiB of free disk space that every node needs for results."""
    patience: float = 60.0
    """Seconds within which each node must answer."""
    cost: CostConfig = dataclasses.field(default_factory=CostConfig)
    registry: RegistryConfig = runtime_group(RegistryConfig)
    ray: RayConfig = runtime_group(RayConfig)
    out: str = path_field("output", "runs")
    """Folder or URI for the job's results."""
