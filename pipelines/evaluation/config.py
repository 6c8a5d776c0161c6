"""The configuration of an evaluation."""

import dataclasses
from typing import Literal

from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.runtime import RayConfig
from pipelines.core.steps import runtime_field, runtime_group
from pipelines.evaluation.tag_noise import TagNoise
from pipelines.inference.decoding import DecodingConfig
from pipelines.registry import RegistryConfig
from pipelines.scoring.benchmarks import MIXED, benchmark_table
from pipelines.scoring.config import ScoringConfig

TAG_READING = ("threshold", "tag_order")
"""The fields of `EvaluateConfig` that decide which tags the model reads, and in which order."""


@dataclasses.dataclass(frozen=True)
class InferenceConfig:
    """How the model is run."""

    beams: int | None = None
    """Width of the beam search. Empty: the model's own (the released LION's is 5)."""
    decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)
    """The other settings of decoding. Each empty setting is the model's own."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the model. `auto`: bf16 on a GPU and fp32 on a CPU."""
    shard_rows: int = 256
    """Rows of a shard, which is the unit of work, of retries and of what a killed run keeps. Lower it if runs are
    killed often."""
    launcher: Literal["ray", "local"] = runtime_field("ray")
    """`ray`: a pool of actors on the cluster. `local`: this process without Ray, for few questions and small models,
    where starting an actor would take longer than the answers."""
    batch_size: int = runtime_field(16)
    """Rows per forward pass; a batch may mix tasks. Lower it if the GPU's memory is too small."""
    actors: int | None = runtime_field(None)
    """Number of actors; each holds the model in memory. Empty: one per GPU, or one without GPUs."""
    cpus: float | None = runtime_field(None)
    """CPUs per actor, which are also the threads of its model. Empty: 1 for an actor with a GPU, else half of the
    cluster's CPUs."""
    gpus: float | None = runtime_field(None)
    """GPUs per actor, for example 0.5 for two actors per GPU. Empty: 1 where the cluster has GPUs, else 0."""

    def check(self) -> None:
        """Refuse values that no run can work with.

        Raises:
            UserError: names the field, its value, and the values that are allowed.
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
class EvaluateConfig:
    """Evaluate a model on a benchmark, or score existing predictions."""

    benchmark: str = MIXED
    """Name of a benchmark or a task in `pipelines/scoring/benchmarks.yaml`, for example `okvqa`. `mixed`: all rows,
    each scored by its own task's metric."""
    predictions: str | None = path_field("input", None)
    """Existing predictions (a Parquet file or a folder) to score without a model. Only the column `prediction` is
    required. The true answers are in `references` (REC: `box`), or come from `data` by sample_id."""
    model: str | None = path_field("model", None)
    """The model to evaluate: a folder, or `models:/NAME@ALIAS`."""
    data: str | None = path_field("input", None)
    """The `instructions` folder (made in mode evaluate) with questions and true answers."""
    tagged: str | None = path_field("input", None)
    """With a model: the `tagged` folder, which has the URIs and the tags of the images. With `predictions`: needed only
    for the sizes of the images, where boxes are in pixels."""
    threshold: Literal["per_tag"] | float | None = None
    """The model reads a tag if its confidence is above this: a number for all tags, or `per_tag`, each tag's own
    threshold. Empty: as the model was trained; if its training has not decided it, `per_tag` where the table has
    thresholds."""
    tag_order: Literal["list", "confidence"] | None = None
    """Order of the tags in the prompt: `confidence` (falling), or `list`, the order of RAM's list. Empty: as the model
    was trained."""
    out: str = path_field("output", "runs")
    """Folder or URI under which the result's folder is created."""
    scoring: ScoringConfig = dataclasses.field(default_factory=ScoringConfig)
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)
    tag_noise: TagNoise = dataclasses.field(default_factory=TagNoise)
    registry: RegistryConfig = runtime_group(RegistryConfig)
    ray: RayConfig = runtime_group(RayConfig)

    def check(self) -> None:
        """Refuse combinations that no run can work with.

        Raises:
            UserError: names the field, and what to change.
        """
        if self.benchmark != MIXED:
            benchmark_table().find(self.benchmark)
        if (self.predictions is None) == (self.model is None):
            raise UserError("Give either --predictions (metrics only) or --model (with --data and --tagged).")
        if self.model is None:
            changed = [name for name in TAG_READING if getattr(self, name) is not None]
            changed += ["tag_noise"] if self.tag_noise.strength else []
            if changed:
                raise UserError(
                    f"{changed[0]} changes the prompt of a model; it has no effect on --predictions: leave it out."
                )
        if self.model is not None and not (self.data and self.tagged):
            raise UserError("A model needs --data (the instructions folder) and --tagged (URIs and tags of images).")
        self.inference.check()
