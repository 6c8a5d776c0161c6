"""What a sweep is asked to do. Nothing heavy is imported here: `--help` reads it."""

import dataclasses
from typing import Any, Literal

from pipelines.core.errors import UserError
from pipelines.core.paths import path_field, settings_field
from pipelines.core.runtime import RayConfig
from pipelines.core.steps import runtime_field, runtime_group
from pipelines.registry import RegistryConfig
from pipelines.training.config import TrainStageConfig, TrainTagEncoderConfig

Verb = Literal["train_tag_encoder", "train_stage"]
_TRAININGS: dict[str, type] = {"train_tag_encoder": TrainTagEncoderConfig, "train_stage": TrainStageConfig}
# A metric in the unit of what is swept cannot rank trials: a small margin has a small loss whatever it learns.
_LOSS_DEPENDS_ON = {"margin", "p", "normalize", "positive"}
_LOSSES = {"loss", "validation_loss", "violations"}
# Fields that decide on which samples a trial is measured: trials of different samples cannot be ranked.
_MEASURED_ON = {"held_out_seed", "validation_fraction", "validation_samples"}


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """ASHA (asynchronous successive halving, arXiv 1810.05934): of the trials that have come equally far, the worse
    are stopped."""

    enabled: bool = True
    """Whether any trial is stopped."""
    first: float = 0.1
    """The part of its training that every trial gets before it may be stopped."""
    reduction: float = 3.0
    """One of so many goes on at each look, and each look comes so many times later than the one before."""

    def __post_init__(self) -> None:
        if not 0 < self.first < 1 or self.reduction <= 1:
            raise UserError(
                f"early_stopping.first must be between 0 and 1 and reduction above 1; they are {self.first:g} and "
                f"{self.reduction:g}."
            )


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Sweeps fields of a training's configuration with Ray Tune and says which values are best."""

    verb: Verb = "train_tag_encoder"
    """The training that every trial is."""
    training: dict[str, Any] = settings_field(lambda config: _TRAININGS.get(config.verb))
    """Its configuration, as in its own YAML; it is trained as it stands, too, and the best trial is shown beside it."""
    space: dict[str, dict[str, Any]] = settings_field(lambda config: _TRAININGS.get(config.verb), dotted=True)
    """What varies, by dotted field: {choice: [a, b]}, {uniform: [low, high]}, {log_uniform: [low, high]} or
    {integer: [low, high]}, ends included. A margin is in the unit of the distances. With normalize, vectors have length
    1: distances lie between 0 and 2 for p = 2, and between 0 and twice the root of the width for p = 1, so that p and
    margin are best swept apart. Without it they also grow with the vectors."""
    metric: str = "cosine_gap"
    """The validation metric that ranks trials, as the training names it: for a tag encoder cosine_gap (the cosine to
    the own caption less that to another's) or triplet_accuracy, which mean the same whatever the margin; for a stage
    loss."""
    mode: Literal["max", "min"] = "max"
    """Whether more of it is better."""
    search: Literal["optuna", "random", "grid"] = "optuna"
    """optuna: its TPE sampler learns from the trials before. grid: every combination of choices."""
    trials: int = 12
    """How many trials; a grid has as many as it has combinations."""
    seed: int = 0
    """Seed of the search."""
    early_stopping: EarlyStopping = dataclasses.field(default_factory=EarlyStopping)
    concurrent: int | None = runtime_field(None)
    """Most trials at once; empty: as many as the cluster has room for."""
    retries: int = runtime_field(1)
    """How often a trial that failed is started again, from its last checkpoint."""
    registry: RegistryConfig = runtime_group(RegistryConfig)
    ray: RayConfig = runtime_group(RayConfig)
    out: str = path_field("output", "runs", runtime=True)
    """Folder or URI under which the results of every trial and of the sweep lie."""


def check(config: SweepConfig) -> None:
    """Refuse what no sweep can work with, before anything is read.

    Raises:
        UserError: says what to change.
    """
    if not config.space:
        raise UserError("space is empty; name a field to vary, such as margin: {choice: [0.3, 0.5, 1.0]}.")
    if config.trials < 1 or config.retries < 0 or (config.concurrent is not None and config.concurrent < 1):
        raise UserError("trials and concurrent must be at least 1, and retries at least 0.")
    if config.seed < 0:
        raise UserError(f"seed is {config.seed}; a seed is 0 or more.")
    if measured_on := sorted(_MEASURED_ON & set(config.space)):
        raise UserError(
            f"space has {measured_on}, which decide on which samples a trial is measured, so that trials could not be "
            "ranked; set them in training."
        )
    changed = sorted(_LOSS_DEPENDS_ON & set(config.space))
    if changed and config.verb == "train_tag_encoder" and config.metric in _LOSSES:
        raise UserError(
            f"metric {config.metric!r} depends on {changed} by definition, so that it cannot say which value is "
            "better; take cosine_gap or triplet_accuracy with mode max."
        )
    if "margin" in config.space and "normalize" not in {*config.training, *config.space}:
        raise UserError(
            "training.normalize is left open, and a margin means nothing without the scale of the distances: set it to "
            "true (vectors of length 1, distances between 0 and 2 where p is 2), or to false (distances grow with "
            "the encoder's width)."
        )
    launcher = config.training.get("launch", {}).get("launcher", "ray")
    if launcher != "ray":
        raise UserError(f"training.launch.launcher is {launcher!r}; trials are Ray Train runs: leave it out.")
