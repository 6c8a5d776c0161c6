"""Fixed pools of actors that hold models: how many, on which resources, leaving CPUs to read, decode and write."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from pipelines.core.errors import UserError

T = TypeVar("T")
_TAGGER_MEMORY = 4 * 2**30
"""Bytes of a node's memory per tagger on a CPU: RAM's weights take 1.8 GiB in fp32, a batch and PyTorch the rest."""


class PoolConfig(Protocol):
    """The user's settings of an actor pool; None leaves a value to the plan."""

    @property
    def actors(self) -> int | None: ...

    @property
    def cpus(self) -> float | None: ...

    @property
    def gpus(self) -> float | None: ...


@dataclasses.dataclass(frozen=True)
class ModelPool:
    """A fixed pool of actors that each hold a model.

    Attributes:
        actors: number of actors.
        cpus: CPUs of each, held for as long as the pipeline runs.
        gpus: GPUs of each, held likewise.
    """

    actors: int
    cpus: float
    gpus: float

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} CPU", *([f"{self.gpus:g} GPU"] if self.gpus else [])]
        return f"{self.actors} of {' and '.join(parts)}"


@dataclasses.dataclass(frozen=True)
class ModelPlan:
    """The actor pools of a run.

    Attributes:
        tagger: the pool of taggers.
        captioner: the pool of sentence encoders; None where the images have no captions.
    """

    tagger: ModelPool
    captioner: ModelPool | None

    def __str__(self) -> str:
        return f"taggers: {self.tagger}" + (f"; captioners: {self.captioner}" if self.captioner else "")

    @property
    def pools(self) -> list[ModelPool]:
        """The pools of this run."""
        return [self.tagger, *([self.captioner] if self.captioner else [])]

    def total(self) -> dict[str, float]:
        """Return the resources of all actors plus one CPU: the smallest cluster on which tasks can make progress."""
        total = {"CPU": 1 + sum(pool.actors * pool.cpus for pool in self.pools)}
        gpus = sum(pool.actors * pool.gpus for pool in self.pools)
        return {**total, "GPU": gpus} if gpus else total


def make_plan(
    tagger: PoolConfig, captioner: PoolConfig | None, nodes: Sequence[Mapping[str, float]], needs_model: bool = True
) -> ModelPlan:
    """Return the pools of a run, with every value that the user left empty filled in.

    Args:
        tagger: the user's settings of the taggers.
        captioner: those of the sentence encoders; None where the images have no captions.
        nodes: the resources of each node under Ray's names, and `cores` where a node has fewer cores than CPUs.
        needs_model: whether the tagger computes; looking up tags in a table takes one CPU and no GPU.
    """
    gpus = int(sum(node.get("GPU", 0) for node in nodes)) if needs_model else 0
    with_captions = captioner is not None
    gpu_share = _or(tagger.gpus, (0.9 if with_captions else 1.0) if gpus else 0.0)
    if needs_model and not gpu_share:
        pool = _on_cpus(tagger.actors, tagger.cpus, nodes)
    else:
        default_actors = max(1, int(gpus / gpu_share)) if needs_model else 1
        pool = ModelPool(_or(tagger.actors, default_actors), _or(tagger.cpus, 1.0), gpu_share)
    if captioner is None:
        return ModelPlan(pool, None)
    on_gpu = _or(captioner.gpus, 0.1 if gpus else 0.0)
    default_encoders = -(-pool.actors // 4) if on_gpu else 1
    encoders = ModelPool(_or(captioner.actors, default_encoders), _or(captioner.cpus, 1.0), on_gpu)
    return ModelPlan(pool, encoders)


def _on_cpus(actors: int | None, cpus: float | None, nodes: Sequence[Mapping[str, float]]) -> ModelPool:
    """Return the pool of taggers without GPUs: one per core, as far as memory allows, on three quarters of the CPUs.

    Each has one thread: several threads of a model wait for each other whenever one of them shares its core with
    decoding or Ray (docs/speed.md has the measurement).
    """
    nodes = [node for node in nodes if node.get("CPU", 0) >= 1] or [{"CPU": 1.0}]
    free = [_free_cores(node) for node in nodes]
    if cpus is not None:
        return ModelPool(_or(actors, max(1, sum(int(cores / cpus) for cores in free))), cpus, 0.0)
    if actors is not None:
        return ModelPool(actors, float(max(1, min(min(free), sum(free) // actors))), 0.0)
    fits_in_memory = [node.get("memory", math.inf) // _TAGGER_MEMORY for node in nodes]
    taggers = [int(max(1, min(pair))) for pair in zip(free, fits_in_memory, strict=True)]
    threads = min(cores // count for cores, count in zip(free, taggers, strict=True))
    return ModelPool(sum(taggers), float(threads), 0.0)


def _free_cores(node: Mapping[str, float]) -> int:
    """Return the number of cores of a node that taggers may use; the other CPUs read, decode and write."""
    cpus = node["CPU"]
    return int(max(1, min(cpus - max(2, cpus // 4), node.get("cores", cpus))))


def check_fit(plan: ModelPlan, nodes: Sequence[Mapping[str, float]]) -> None:
    """Check that every actor fits on a node (P11).

    The cluster's total can be large enough although no single node has room for an actor. Ray would wait forever then.

    Args:
        plan: the pools.
        nodes: the resources of each node.

    Raises:
        UserError: an actor, or the last task, fits on no node.
    """
    free = [{name: node.get(name, 0.0) for name in ("CPU", "GPU")} for node in nodes]
    # The largest first: small actors fit into what is left.
    bundles = sorted((pool for pool in plan.pools for _ in range(pool.actors)), key=lambda p: (-p.gpus, -p.cpus))
    for bundle in [*bundles, ModelPool(1, 1.0, 0.0)]:
        node = next((n for n in free if n["CPU"] >= bundle.cpus and n["GPU"] >= bundle.gpus - 1e-9), None)
        if node is None:
            part = _in_words({"CPU": bundle.cpus, "GPU": bundle.gpus})
            raise UserError(
                f"Precompute needs {_in_words(plan.total())} at the same time, and a part of it ({part}) fits on no "
                "node; lower tagger.actors, tagger.cpus, tagger.gpus or those of the captioner, or add nodes."
            )
        node["CPU"] -= bundle.cpus
        node["GPU"] -= bundle.gpus


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _in_words(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items() if amount)
