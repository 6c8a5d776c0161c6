"""How many models run where: fixed actor pools that leave CPUs for reading, decoding and writing."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from pipelines.errors import UserError

T = TypeVar("T")


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
    """Fills in what the user left open.

    Args:
        tagger: the tagger's wishes.
        captioner: the captioner's, None where the images have no captions.
        nodes: the resources of each node, by Ray's names.
        needs_model: whether the tagger computes at all; looking tags up takes one CPU and no GPU.
    """
    gpus = int(sum(node.get("GPU", 0) for node in nodes)) if needs_model else 0
    with_captions = captioner is not None
    gpu_share = _or(tagger.gpus, (0.9 if with_captions else 1.0) if gpus else 0.0)
    if not needs_model:
        default_actors, default_cpus = 1, 1.0
    elif gpu_share:
        default_actors, default_cpus = max(1, int(gpus / gpu_share)), 1.0
    else:
        smallest = min((node.get("CPU", 0) for node in nodes), default=0)
        default_actors = max(1, sum(node.get("CPU", 0) >= 1 for node in nodes))
        default_cpus = float(max(1, (smallest - 2) // 2))
    pool = Pool(_or(tagger.actors, default_actors), _or(tagger.cpus, default_cpus), gpu_share)
    if captioner is None:
        return Plan(pool, None)
    on_gpu = _or(captioner.gpus, 0.1 if gpus else 0.0)
    encoders = Pool(_or(captioner.actors, -(-pool.actors // 4) if on_gpu else 1), _or(captioner.cpus, 1.0), on_gpu)
    return Plan(pool, encoders)


def require_place(plan: Plan, nodes: Sequence[Mapping[str, float]]) -> None:
    """Refuses a plan whose actors find no node, though the cluster as a whole might have enough (P11).

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
