"""What the doctor is asked. Nothing heavy is imported here: `--help` reads it."""

import dataclasses
from typing import Any

from pipelines.registry import RegistryConfig
from pipelines.runtime import RayConfig
from pipelines.steps import runtime_group


@dataclasses.dataclass(frozen=True)
class DoctorConfig:
    """Looks at the place where a job is to run, and whether the job can run there."""

    verb: str = ""
    """The job's verb, such as train_stage or pipeline; empty: only the place is looked at."""
    file: str | None = None
    """The job's configuration, a YAML file."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of the job's configuration, over those of the file."""
    free_gib: float = 10.0
    """GiB that must be free where results go."""
    patience: float = 60.0
    """Seconds that each node has to answer."""
    registry: RegistryConfig = runtime_group(RegistryConfig)
    ray: RayConfig = runtime_group(RayConfig)
    out: str = "runs"
    """The folder or URI under which the job's results will lie."""
