"""What the doctor is asked. Nothing heavy is imported here: `--help` reads it."""

import dataclasses
from typing import Any

from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.runtime import RayConfig
from pipelines.core.steps import runtime_group
from pipelines.registry import RegistryConfig


@dataclasses.dataclass(frozen=True)
class CostConfig:
    """What the data will take in hours and dollars, by rates that were measured."""

    images: int | None = None
    """Images of the data; empty: nothing is reckoned."""
    workers: int = 1
    """GPUs, or processes on CPUs, that compute at once."""
    dollars_per_hour: float | None = None
    """Price of one of them for an hour, with its share of the machine; empty: worker hours are all that is said."""
    measured: list[str] = path_field("input", default_factory=list)
    """Folders of finished steps (precompute, train_tag_encoder, train_stage): their manifests hold how fast they
    were."""
    rates: str | None = path_field("input", None, sent=True)
    """A YAML file of rates; see pipelines/operations/doctor/cost.py."""

    def __post_init__(self) -> None:
        for name in ("images", "workers", "dollars_per_hour"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"cost.{name} is {value:g}; give a number above 0.")


@dataclasses.dataclass(frozen=True)
class DoctorConfig:
    """Looks at the place where a job is to run, and whether the job can run there."""

    verb: str = ""
    """The job's verb, such as train_stage or pipeline; empty: only the place is looked at."""
    file: str | None = path_field("input", None, sent=True)
    """The job's configuration, a YAML file."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of the job's configuration, over those of the file."""
    free_gib: float = 10.0
    """GiB that must be free where results go."""
    patience: float = 60.0
    """Seconds that each node has to answer."""
    cost: CostConfig = dataclasses.field(default_factory=CostConfig)
    registry: RegistryConfig = runtime_group(RegistryConfig)
    ray: RayConfig = runtime_group(RayConfig)
    out: str = path_field("output", "runs")
    """The folder or URI under which the job's results will lie."""
