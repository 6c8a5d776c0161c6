"""Shards of an evaluation through Ray Data: a fixed pool of models, one block a shard. Or in this process."""

import dataclasses
import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import pyarrow as pa

from pipelines.core.errors import UserError
from pipelines.core.runtime import require_resources
from pipelines.core.shards import blocks
from pipelines.core.steps import runtime_field
from pipelines.inference.answerer import Asking, Predict
from pipelines.inference.decoding import DecodingConfig

log = logging.getLogger("lion.evaluate")
_SECONDS_BETWEEN_LINES = 5.0


@dataclasses.dataclass(frozen=True)
class InferenceConfig:
    """How the model is run."""

    beams: int | None = None
    """Width of the beam search; empty: the model's own (the released LION's is 5)."""
    decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)
    """The other settings of decoding; each one left empty is the model's own."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the model: `auto` is bf16 on a GPU and fp32 on a CPU."""
    shard_rows: int = 256
    """Rows of a shard: the unit of work, of retries and of what a killed run keeps."""
    launcher: Literal["ray", "local"] = runtime_field("ray")
    """`ray`: a pool of actors on the cluster. `local`: this process without Ray, for few questions and small models: an
    actor takes longer to start than they take to answer."""
    batch_size: int = runtime_field(16)
    """Rows per forward pass; tasks are mixed."""
    actors: int | None = runtime_field(None)
    """Models in memory; empty: one per GPU, or one where there is none."""
    cpus: float | None = runtime_field(None)
    """CPUs per actor, and threads of its model; empty: 1 beside a GPU, else half of the cluster's CPUs."""
    gpus: float | None = runtime_field(None)
    """GPUs per actor; empty: a whole one where the cluster has any."""

    def check(self) -> None:
        """Refuse values that no run can work with.

        Raises:
            UserError: names the field, its value, and what to give instead.
        """
        self.decoding.check(self.beams)
        for name in ("shard_rows", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"inference.{name} is {getattr(self, name)}; give at least 1.")
        for name in ("actors", "cpus"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"inference.{name} is {value}; give more than 0, or nothing.")


@dataclasses.dataclass(frozen=True)
class Pool:
    """A fixed actor pool: each of `actors` holds `cpus` and `gpus` for as long as the run lasts."""

    actors: int
    cpus: float
    gpus: float


def plan_pool(config: InferenceConfig) -> Pool:
    """Fill in what the user left open, by the connected Ray.

    Raises:
        UserError: the cluster can never hold the pool and the one CPU that hands out the shards (P11).
    """
    import ray

    total = ray.cluster_resources()
    gpus = config.gpus if config.gpus is not None else float(total.get("GPU", 0) >= 1)
    cpus = config.cpus or (1.0 if gpus else float(max(1, (int(total.get("CPU", 1)) - 1) // 2)))
    actors = config.actors or (max(1, int(total.get("GPU", 0) / gpus)) if gpus else 1)
    needed = {"CPU": actors * cpus + 1} | ({"GPU": actors * gpus} if gpus else {})
    require_resources(needed, f"Evaluation ({actors} actors of {cpus:g} CPU and {gpus:g} GPU, and one CPU beside them)")
    return Pool(actors, cpus, gpus)


def plan_here(config: InferenceConfig) -> Pool:
    """What this process may use, without Ray.

    Raises:
        UserError: several actors are asked for, which one process is not.
    """
    import torch

    if config.actors is not None and config.actors > 1:
        raise UserError("inference.launcher local is one process; leave inference.actors out, or take launcher ray.")
    gpus = config.gpus if config.gpus is not None else float(torch.cuda.is_available())
    return Pool(1, config.cpus or float(os.cpu_count() or 1), gpus)


def answer_here(folder: str, missing: Sequence[int], asking: Asking) -> Iterator[int]:
    """Like `answer_shards`, in this process and in order."""
    predict = Predict(folder, asking)
    for shard in missing:
        yield from predict(pa.table({"shard": [shard]}))["rows"].to_pylist()


def answer_shards(folder: str, missing: Sequence[int], asking: Asking, pool: Pool) -> Iterator[int]:
    """Answer the missing shards and yields the rows of each as it is written, in any order.

    A shard whose actor dies is done again by another and written over, with the same content.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with DataContext.current(context):
        shards = ray.data.from_items([{"shard": shard} for shard in missing], override_num_blocks=len(missing))
        answered = shards.map_batches(
            Predict,
            fn_constructor_args=(folder, asking),
            compute=ActorPoolStrategy(size=min(pool.actors, len(missing))),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            batch_format="pyarrow",
            batch_size=None,
        )
        for block in blocks(answered):
            yield from block["rows"].to_pylist()


def report_progress(answered: Iterator[int], expected_rows: float) -> None:
    """Run through `answered`, with a line on stderr every few seconds and at the end."""
    started = shown = time.monotonic()
    shards = rows = 0
    for count in answered:
        shards, rows, now = shards + 1, rows + count, time.monotonic()
        if now - shown >= _SECONDS_BETWEEN_LINES:
            shown, rate = now, rows / (now - started)
            log.info("%d rows, %.1f rows/s, %.0f s left", rows, rate, max(0.0, expected_rows - rows) / rate)
    seconds = time.monotonic() - started
    log.info("%d rows in %d shards answered in %.1f s (%.1f rows/s)", rows, shards, seconds, rows / seconds)
