"""Configuration of `jobs.sweep`. Only light imports, so that `--help` is fast."""

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
# A loss that is defined by a swept field cannot rank trials: a small margin gives a small loss, whatever is learned.
_LOSS_DEPENDS_ON = {"margin", "p", "normalize", "positive"}
_LOSSES = {"loss", "validation_loss", "violations"}
# These fields select the validation samples. Trials with different validation samples cannot be ranked.
_MEASURED_ON = {"held_out_seed", "validation_fraction", "validation_samples"}


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Settings of ASHA (asynchronous successive halving, arXiv 1810.05934), which compares trials at the same progress
    and stops the worse ones."""

    enabled: bool = True
    """Whether trials may be stopped early. Set to false to train every trial to its end."""
    first: float = 0.1
    """Share of its training that a trial completes before it may be stopped, in (0, 1): 0.1 is the first tenth."""
    reduction: float = 3.0
    """Reduction factor, above 1. At each comparison about 1/reduction of the trials continue, and the next comparison
    comes at `reduction` times the progress: with 3, one of three continues, at 10 %, 30 % and 90 %."""

    def __post_init__(self) -> None:
        if not 0 < self.first < 1 or self.reduction <= 1:
            raise UserError(
                f"early_stopping.first must be between 0 and 1 and early_stopping.reduction above 1; they are "
                f"{self.first:g} and {self.reduction:g}."
            )


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Search values for fields of a training's configuration with Ray Tune.

    The trials are ranked by a validation metric, and the model of the best one is registered.
    """

    verb: Verb = "train_tag_encoder"
    """Training verb that each trial runs."""
    training: dict[str, Any] = settings_field(lambda config: _TRAININGS.get(config.verb))
    """Configuration of the training, as in the verb's YAML file. The sweep also trains it unchanged and ranks the
    result as `default`, so that the best trial can be compared with it."""
    space: dict[str, dict[str, Any]] = settings_field(lambda config: _TRAININGS.get(config.verb), dotted=True)
    """Fields to vary, by dotted name, each with one range: {choice: [a, b]}, {uniform: [low, high]},
    {log_uniform: [low, high]} or {integer: [low, high]}; both ends are included. Example:
    optimizer.learning_rate: {log_uniform: [1e-5, 1e-3]}. A margin is in the unit of the distances. With normalize,
    vectors have length 1: distances are in [0, 2] for p = 2 and in [0, 2 × √width] for p = 1, so sweep p and margin in
    separate runs. Without normalize, distances also grow with the length of the vectors."""
    metric: str = "cosine_gap"
    """Validation metric that ranks the trials, under the name that the training reports. For a tag encoder: cosine_gap
    (the cosine to the image's own caption minus the cosine to another image's) or triplet_accuracy; both can be
    compared across margins. For a stage: loss."""
    mode: Literal["max", "min"] = "max"
    """max if a higher value of the metric is better, min if a lower one is."""
    search: Literal["optuna", "random", "grid"] = "optuna"
    """Search method. optuna: the TPE sampler, which learns from finished trials. random: independent samples. grid:
    every combination; all ranges must be choices."""
    trials: int = 12
    """Number of trials. Ignored for a grid, which runs every combination."""
    seed: int = 0
    """Seed of the search method, 0 or more. It does not change the seed of the trainings."""
    early_stopping: EarlyStopping = dataclasses.field(default_factory=EarlyStopping)
    concurrent: int | None = runtime_field(None)
    """Largest number of trials that run at the same time; empty: as many as fit on the cluster."""
    retries: int = runtime_field(1)
    """Number of times that a failed trial is restarted, from its last checkpoint."""
    registry: RegistryConfig = runtime_group(RegistryConfig)
    ray: RayConfig = runtime_group(RayConfig)
    out: str = path_field("output", "runs", runtime=True)
    """Folder or URI for the step folders of the trials and of the sweep."""


def check(config: SweepConfig) -> None:
    """Check the configuration without reading any data.

    Raises:
        UserError: a value is out of range, or the metric or a swept field makes a ranking impossible.
    """
    if not config.space:
        raise UserError("space is empty; add a field to vary, such as margin: {choice: [0.3, 0.5, 1.0]}.")
    if config.trials < 1 or config.retries < 0 or (config.concurrent is not None and config.concurrent < 1):
        raise UserError(
            f"trials is {config.trials}, concurrent {config.concurrent}, retries {config.retries}; trials and "
            "concurrent must be at least 1, and retries at least 0."
        )
    if config.seed < 0:
        raise UserError(f"seed is {config.seed}; set it to 0 or more.")
    if measured_on := sorted(_MEASURED_ON & set(config.space)):
        raise UserError(
            f"space has {measured_on}, which decide on which samples a trial is measured. Trials on different samples "
            "cannot be ranked; move these fields to training."
        )
    changed = sorted(_LOSS_DEPENDS_ON & set(config.space))
    if changed and config.verb == "train_tag_encoder" and config.metric in _LOSSES:
        raise UserError(
            f"metric {config.metric!r} depends on {changed} by definition, so it cannot rank their values; set "
            "metric to cosine_gap or triplet_accuracy, with mode max."
        )
    if "margin" in config.space and "normalize" not in {*config.training, *config.space}:
        raise UserError(
            "space varies margin, but training.normalize is not set, so the scale of the distances is undefined: set "
            "it to true (vectors of length 1; distances in [0, 2] for p = 2) or to false (distances grow with the "
            "encoder's width)."
        )
    launcher = config.training.get("launch", {}).get("launcher", "ray")
    if launcher != "ray":
        raise UserError(f"training.launch.launcher is {launcher!r}, but trials are Ray Train runs; remove the field.")
