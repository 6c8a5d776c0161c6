"""Resource planning: how many workers a launch asks for, what each of them takes, and how many the nodes hold."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pipelines.core.errors import UserError

_MOST_CORES = 8
# Ray counts CPUs in floats; without this, 0.1 + 0.2 CPUs would not hold 0.3.
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class LaunchConfig:
    """Where the training loop runs, on how many workers, and what each worker takes."""

    launcher: Literal["ray", "local"] = "ray"
    """`ray`: workers of Ray Train, which are restarted when they fail. `local`: this machine without Ray; a single
    worker runs in this process, several workers are started by torchrun's launcher."""
    workers: int = 1
    """Number of worker processes; each computes its share of every batch. On GPUs use one worker per GPU."""
    min_workers: int | None = None
    """Smallest number of workers with which a training on Ray starts or continues when nodes are missing. The training
    grows back to `workers` from its last checkpoint as soon as the cluster has room. Empty: wait for all workers."""
    resize_every: float = 60.0
    """Seconds between two checks for free room, while fewer than `workers` workers run."""
    cpus_per_worker: int | None = None
    """CPU threads of each worker; empty: the cores of this machine divided by the number of workers, at most 8."""
    gpus_per_worker: float | None = None
    """GPUs of each worker; empty: 1 if the cluster has GPUs, else 0."""
    gpu_memory: float | None = None
    """GiB of memory of each GPU. When set, a training that does not fit is refused before it starts; empty: each worker
    checks its GPU when it starts."""
    max_failures: int = 3
    """How often Ray restarts failed workers from the last checkpoint before the training fails."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UserError(f"launch.workers is {self.workers}; set it to at least 1.")
        if self.min_workers is not None and not 1 <= self.min_workers <= self.workers:
            raise UserError(
                f"launch.min_workers is {self.min_workers}; set it to a number from 1 to launch.workers "
                f"({self.workers})."
            )
        if self.min_workers is not None and self.launcher == "local":
            raise UserError(
                "launch.min_workers needs launch.launcher ray: local workers start and end together; leave it out."
            )
        if self.resize_every <= 0:
            raise UserError(f"launch.resize_every is {self.resize_every:g}; set it to a number of seconds above 0.")

    @property
    def fewest(self) -> int:
        """The number of workers that must fit before the training starts."""
        return self.workers if self.min_workers is None else self.min_workers


def worker_resources(config: LaunchConfig, has_gpus: bool) -> tuple[int, float]:
    """Return the CPUs and GPUs of each worker, with defaults for the fields that are empty.

    Args:
        config: the launch.
        has_gpus: whether the cluster has at least one GPU.
    """
    gpus = float(has_gpus) if config.gpus_per_worker is None else config.gpus_per_worker
    return config.cpus_per_worker or cores_per_process(config.workers), gpus


def resolve_launch(config: LaunchConfig, nodes: Sequence[Mapping[str, Any]]) -> LaunchConfig:
    """Return the launch with `cpus_per_worker` and `gpus_per_worker` set.

    Args:
        config: the launch.
        nodes: the resources of each living node, such as `{"CPU": 16.0, "GPU": 1.0}`.
    """
    cpus, gpus = worker_resources(config, any(node.get("GPU") for node in nodes))
    return dataclasses.replace(config, cpus_per_worker=cpus, gpus_per_worker=gpus)


def workers_that_fit(launch: LaunchConfig, nodes: Sequence[Mapping[str, Any]], reserved: float) -> int:
    """Return how many workers fit on the nodes. A worker needs one node: rests of two nodes do not add up.

    Args:
        launch: a resolved launch, see `resolve_launch`.
        nodes: the resources of each living node.
        reserved: CPUs on each node that other work may hold.
    """
    cpus, gpus = float(launch.cpus_per_worker or 1), launch.gpus_per_worker or 0.0
    workers = 0
    for node in nodes:
        fitting = math.floor((node.get("CPU", 0.0) - reserved + _ROUNDING) / cpus)
        if gpus:
            fitting = min(fitting, math.floor(node.get("GPU", 0.0) / gpus + _ROUNDING))
        workers += max(fitting, 0)
    return workers


def cores_per_process(processes: int) -> int:
    """Return this machine's cores divided by `processes`, from 1 to 8; more threads than cores slow each other down."""
    return max(1, min(_MOST_CORES, (os.cpu_count() or 1) // processes))
