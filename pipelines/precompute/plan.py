"""How many models run where: fixed actor pools that leave CPUs for reading, decoding and writing."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from pipelines.core.errors import UserError

T = TypeVar("T")
_TAGGER_MEMORY = 4 * 2**30
"""What the plan leaves to a tagger on a CPU: RAM's weights are 1.8 GiB in fp32, and a batch and PyTorch come on top."""


class PoolConfig(Protocol):
    """What a user may say about an actor pool; None leaves it to the plan."""

    @property
    def actors(self) -> int | None: ...

    @property
    def cpus(self) -> float | None: ...

    @property
    def gpus(self) -> float | None: ...


@dataclasses.dataclass(frozen=True)
class Pool:
    """A fixed actor pool: each of `actors` holds `cpus` and `gpus` for as long as the pipeline runs."""

    actors: int
    cpus: float
    gpus: float

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} CPU", *([f"{self.gpus:g} GPU"] if self.gpus else [])]
        return f"{self.actors} of {' and '.join(parts)}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """The pools of a run; a pool that is not needed is None."""

    tagger: Pool
    captioner: Pool | None

    def __str__(self) -> str:
        return f"taggers: {self.tagger}" + (f"; captioners: {self.captioner}" if self.captioner else "")

    @property
    def pools(self) -> list[Pool]:
        """The pools that there are."""
        return [self.tagger, *([self.captioner] if self.captioner else [])]

    def total(self) -> dict[str, float]:
        """What is held at once, with the one CPU that tasks need to get anything done."""
        total = {"CPU": 1 + sum(pool.actors * pool.cpus for pool in self.pools)}
        gpus = sum(pool.actors * pool.gpus for pool in self.pools)
        return {**total, "GPU": gpus} if gpus else total


def make_plan(
    tagger: PoolConfig, captioner: PoolConfig | None, nodes: Sequence[Mapping[str, float]], needs_model: bool = True
) -> Plan:
    """Fill in what the user left open.

    Args:
        tagger: the tagger's wishes.
        captioner: the captioner's, None where the images have no captions.
        nodes: the resources of each node, by Ray's names, and `cores` where it has fewer of them than CPUs.
        needs_model: whether the tagger computes at all; looking tags up takes one CPU and no GPU.
    """
    gpus = int(sum(node.get("GPU", 0) for node in nodes)) if needs_model else 0
    with_captions = captioner is not None
    gpu_share = _or(tagger.gpus, (0.9 if with_captions else 1.0) if gpus else 0.0)
    if needs_model and not gpu_share:
        pool = _on_cpus(tagger.actors, tagger.cpus, nodes)
    else:
        default_actors = max(1, int(gpus / gpu_share)) if needs_model else 1
        pool = Pool(_or(tagger.actors, default_actors), _or(tagger.cpus, 1.0), gpu_share)
    if captioner is None:
        return Plan(pool, None)
    on_gpu = _or(captioner.gpus, 0.1 if gpus else 0.0)
    encoders = Pool(_or(captioner.actors, -(-pool.actors // 4) if on_gpu else 1), _or(captioner.cpus, 1.0), on_gpu)
    return Plan(pool, encoders)


def _on_cpus(actors: int | None, cpus: float | None, nodes: Sequence[Mapping[str, float]]) -> Pool:
    """Taggers without GPUs: one to a core, as far as memory goes, and a quarter of the CPUs left to everything else.

    One thread each, because the threads of one model wait for each other whenever one of them has to share its core
    (docs/speed.md has what it gave).
    """
    nodes = [node for node in nodes if node.get("CPU", 0) >= 1] or [{"CPU": 1.0}]
    free = [_free_cores(node) for node in nodes]
    if cpus is not None:
        return Pool(_or(actors, max(1, sum(int(cores / cpus) for cores in free))), cpus, 0.0)
    if actors is not None:
        return Pool(actors, float(max(1, min(min(free), sum(free) // actors))), 0.0)
    rooms = [node.get("memory", math.inf) // _TAGGER_MEMORY for node in nodes]
    taggers = [int(max(1, min(pair))) for pair in zip(free, rooms, strict=True)]
    threads = min(cores // count for cores, count in zip(free, taggers, strict=True))
    return Pool(sum(taggers), float(threads), 0.0)


def _free_cores(node: Mapping[str, float]) -> int:
    """Cores of a node that taggers may take."""
    cpus = node["CPU"]
    return int(max(1, min(cpus - max(2, cpus // 4), node.get("cores", cpus))))


def require_place(plan: Plan, nodes: Sequence[Mapping[str, float]]) -> None:
    """Refuse a plan whose actors find no node, though the cluster as a whole might have enough (P11).

    Raises:
        UserError: which actor does not fit.
    """
    free = [{name: node.get(name, 0.0) for name in ("CPU", "GPU")} for node in nodes]
    bundles = sorted((pool for pool in plan.pools for _ in range(pool.actors)), key=lambda p: (-p.gpus, -p.cpus))
    for bundle in [*bundles, Pool(1, 1.0, 0.0)]:
        node = next((n for n in free if n["CPU"] >= bundle.cpus and n["GPU"] >= bundle.gpus - 1e-9), None)
        if node is None:
            part = _listed({"CPU": bundle.cpus, "GPU": bundle.gpus})
            raise UserError(
                f"Precompute holds {_listed(plan.total())} at once, and a part of it ({part}) fits on no node; "
                "set tagger.actors, tagger.cpus, tagger.gpus or the captioner's lower, or add nodes."
            )
        node["CPU"] -= bundle.cpus
        node["GPU"] -= bundle.gpus


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _listed(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items() if amount)
