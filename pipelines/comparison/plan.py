"""The steps of a comparison: trainings for every arm and seed, and evaluations for every strength of tag noise."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.comparison.config import CompareConfig, OncePer, StageSpec, check
from pipelines.core.errors import UserError
from pipelines.core.resources import LaunchConfig, cores_per_process
from pipelines.core.steps import canonical
from pipelines.core.workflow import Prepare, StepSpec, merged
from pipelines.evaluation.tag_noise import TagNoise
from pipelines.training.config import PromptSettings, TrainStageConfig

_RANK: Mapping[OncePer, int] = {"comparison": 0, "seed": 1, "run": 2}


@dataclass(frozen=True, order=True)
class Run:
    """One training of an arm: its name and the seed.

    The arm is empty for a stage that all arms share.
    """

    arm: str
    seed: int

    def __str__(self) -> str:
        return f"{self.arm}, seed {self.seed}"


@dataclass(frozen=True)
class ComparisonPlan:
    """All trainings of a comparison.

    Attributes:
        trainings: the training steps by name, in order.
        settings: the typed configuration of each step.
        last: the name of each run's last step, whose model is evaluated.
    """

    trainings: Mapping[str, StepSpec]
    settings: Mapping[str, TrainStageConfig]
    last: Mapping[Run, str]


def plan_comparison(config: CompareConfig, prepare: Prepare) -> ComparisonPlan:
    """Return all trainings of a comparison. Their configurations are checked before the first one begins.

    Args:
        config: the comparison.
        prepare: returns the typed configuration of a verb, and the function that runs it.

    Raises:
        UserError: a stage or an arm has a wrong field, or the arms do not get equal amounts of training.
    """
    check(config)
    trainings: dict[str, StepSpec] = {}
    settings: dict[str, TrainStageConfig] = {}
    for stage, spec in config.stages.items():
        _refuse_seed(f"stages.{stage}.train", spec.train)
        for run, name in instances(config, stage).items():
            values = _stage_values(config, stage, run)
            arms = "all arms" if run.arm == "" else f"arm {run.arm}"
            trainings[name] = StepSpec(
                "train_stage", values, f"{spec.why or f'Stage {stage}.'} For {arms}, seed {run.seed}."
            )
            settings[name], _ = prepare("train_stage", values)
    for arm, changes in config.arms.items():
        _refuse_seed(f"arms.{arm}", changes)
    *_, final = config.stages
    plan = ComparisonPlan(trainings, settings, instances(config, final))
    for stage, spec in config.stages.items():
        if spec.once_per == "run":
            _require_equal_budget(config, stage, settings)
    _require_same_held_out(settings)
    _require_different(config, settings)
    return plan


def instances(config: CompareConfig, stage: str) -> dict[Run, str]:
    """Return the name of a stage's training step for each run. The arm is empty if all arms share the stage."""
    once_per = config.stages[stage].once_per
    if once_per == "comparison":
        return {Run("", config.seeds[0]): stage}
    if once_per == "seed":
        return {Run("", seed): f"{stage}__seed{seed}" for seed in config.seeds}
    return {Run(arm, seed): f"{stage}__{arm}__seed{seed}" for arm in config.arms for seed in config.seeds}


def evaluation(config: CompareConfig, model: str, strength: float) -> StepSpec:
    """Return the step that evaluates a model on the comparison's questions.

    Args:
        config: the comparison.
        model: a folder, or models:/NAME/VERSION.
        strength: strength of tag noise in [0, 1].
    """
    errors = {name: value for name, value in dataclasses.asdict(config.noise).items() if name != "levels"}
    inference = dataclasses.asdict(config.inference)
    if config.at_once > 1 and config.inference.launcher == "local" and config.inference.cpus is None:
        inference["cpus"] = float(cores_per_process(config.at_once))
    values = {
        "benchmark": config.benchmark,
        "model": model,
        "data": config.test_data,
        "tagged": config.test_tagged,
        "scoring": dataclasses.asdict(config.scoring),
        "inference": inference,
        "tag_noise": dataclasses.asdict(TagNoise(**errors, strength=strength)),
        "registry": dataclasses.asdict(config.registry),
        "ray": dataclasses.asdict(config.ray),
    }
    return StepSpec("evaluate", values, f"Evaluate {model} with tag noise {strength:g}.")


def _stage_values(config: CompareConfig, stage: str, run: Run) -> dict[str, Any]:
    """Return the configuration of one training as plain values, with the arm's changes and the run's seed."""
    spec = config.stages[stage]
    values = merged(
        {
            "data": config.data,
            "tagged": config.tagged,
            "registry": dataclasses.asdict(config.registry),
            "ray": dataclasses.asdict(config.ray),
        },
        spec.train,
    )
    if run.arm:
        values = merged(values, config.arms[run.arm])
    if stage == list(config.stages)[-1] and config.name:
        values["name"] = config.name
    values["loop"] = merged(values.get("loop", {}), {"seed": run.seed})
    launch = LaunchConfig(**values.get("launch", {}))
    if config.at_once > 1 and launch.launcher == "local" and launch.cpus_per_worker is None:
        share = cores_per_process(config.at_once * launch.workers)
        values["launch"] = merged(values["launch"], {"cpus_per_worker": share})
    kind = values.get("prompt", {}).get("kind", PromptSettings.kind)
    if config.tag_encoder is not None and PromptSettings(kind=kind).dynamic:
        values.setdefault("tag_encoder", config.tag_encoder)
    parents = values.get("parents")
    if not parents:
        raise UserError(f"Stage {stage!r} has no parents; set stages.{stage}.train.parents to a folder or a stage.")
    parents = [parents] if isinstance(parents, str) else list(parents)
    values["parents"] = [_parent(config, stage, spec, run, parent) for parent in parents]
    return values


def _parent(config: CompareConfig, stage: str, spec: StageSpec, run: Run, parent: str) -> str:
    """Return a reference to the step that trains a parent stage for this run; a path or model stays as it is."""
    if parent not in config.stages:
        return parent
    if list(config.stages).index(parent) >= list(config.stages).index(stage):
        raise UserError(f"Stage {stage!r} has the parent {parent!r}, which does not come before it; reorder `stages`.")
    once_per = config.stages[parent].once_per
    if _RANK[once_per] > _RANK[spec.once_per]:
        raise UserError(
            f"Stage {stage!r} is trained once per {spec.once_per} and its parent {parent!r} once per {once_per}, "
            "so several models could be that parent; change once_per of one of them."
        )
    steps = instances(config, parent)
    for candidate in (run, Run("", run.seed), Run("", config.seeds[0])):
        if candidate in steps:
            return f"${{{steps[candidate]}}}"
    raise AssertionError(f"{parent} has no step for {run}")


def _refuse_seed(key: str, values: Mapping[str, Any]) -> None:
    if "seed" in values.get("loop", {}):
        raise UserError(f"{key}.loop.seed has no effect; the seeds of training are given by `seeds`. Leave it out.")


def budget(settings: TrainStageConfig) -> dict[str, Any]:
    """Return the settings that decide how much data a training sees; all arms must have equal ones."""
    loop = settings.loop
    if loop.steps is not None:
        return {"loop.steps": loop.steps, "loop.batch_size": loop.batch_size}
    sizes = {"data": settings.data, "mix": settings.ratios, "validation_fraction": settings.validation_fraction}
    return {"loop.epochs": loop.epochs, "loop.batch_size": loop.batch_size, **sizes, "weights": settings.weights}


def _require_equal_budget(config: CompareConfig, stage: str, settings: Mapping[str, TrainStageConfig]) -> None:
    steps, seed = instances(config, stage), config.seeds[0]
    base = budget(settings[steps[Run(config.base_arm, seed)]])
    for arm in config.challengers:
        changed = budget(settings[steps[Run(arm, seed)]])
        if changed != base:
            names = sorted(name for name in {**base, **changed} if base.get(name) != changed.get(name))
            raise UserError(
                f"Arm {arm!r} does not get as much training as {config.base_arm!r} in stage {stage!r}: {names} differ. "
                "Leave them out of the arm, or set loop.steps and loop.batch_size in the stage."
            )


def _require_same_held_out(settings: Mapping[str, TrainStageConfig]) -> None:
    """Refuse trainings that hold out different images.

    A stage would be validated on images that an earlier stage was trained on, and the validation losses of the arms
    would come from different samples.
    """
    first, *following = settings
    expected = settings[first].held_out
    for name in following:
        if settings[name].held_out != expected:
            raise UserError(
                f"The training {name!r} holds out other images than {first!r} (validation_fraction and held_out_seed: "
                f"{settings[name].held_out} and {expected}); use the same two values in all stages and arms."
            )


def _require_different(config: CompareConfig, settings: Mapping[str, TrainStageConfig]) -> None:
    """Refuse two arms whose trainings are equal: the comparison would compare a model with itself."""
    arm_stages = [stage for stage, spec in config.stages.items() if spec.once_per == "run"]
    arm_by_training: dict[str, str] = {}
    for arm in config.arms:
        trained = [settings[instances(config, stage)[Run(arm, config.seeds[0])]] for stage in arm_stages]
        text = str(canonical(trained)).replace(f"__{arm}__", "__")  # the names of an arm's steps contain the arm
        if text in arm_by_training:
            raise UserError(
                f"Arms {arm_by_training[text]!r} and {arm!r} are the same training; change or remove one of them."
            )
        arm_by_training[text] = arm
