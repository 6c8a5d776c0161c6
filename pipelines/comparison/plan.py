"""The steps that a comparison is made of: a training for every arm and seed, and an evaluation for every tag noise."""

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
from pipelines.training.config import TrainStageConfig

_RANK: Mapping[OncePer, int] = {"comparison": 0, "seed": 1, "run": 2}


@dataclass(frozen=True, order=True)
class Run:
    """One training of an arm."""

    arm: str
    seed: int

    def __str__(self) -> str:
        return f"{self.arm}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """What is trained.

    Attributes:
        trainings: the steps by name, in order.
        settings: their typed configurations.
        last: each run's last step, whose model is evaluated.
    """

    trainings: Mapping[str, StepSpec]
    settings: Mapping[str, TrainStageConfig]
    last: Mapping[Run, str]


def make_plan(config: CompareConfig, prepare: Prepare) -> Plan:
    """Return all trainings, each checked before the first begins.

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
            who = "all arms" if run.arm == "" else f"arm {run.arm}"
            trainings[name] = StepSpec(
                "train_stage", values, f"{spec.why or f'Stage {stage}.'} For {who}, seed {run.seed}."
            )
            settings[name], _ = prepare("train_stage", values)
    for arm, changes in config.arms.items():
        _refuse_seed(f"arms.{arm}", changes)
    *_, final = config.stages
    plan = Plan(trainings, settings, instances(config, final))
    for stage, spec in config.stages.items():
        if spec.once_per == "run":
            _require_equal_budget(config, stage, settings)
    _require_same_held_out(settings)
    _require_different(config, settings)
    return plan


def instances(config: CompareConfig, stage: str) -> dict[Run, str]:
    """Return the runs for which a stage is trained, and their steps' names; an empty arm stands for all of them."""
    once_per = config.stages[stage].once_per
    if once_per == "comparison":
        return {Run("", config.seeds[0]): stage}
    if once_per == "seed":
        return {Run("", seed): f"{stage}__seed{seed}" for seed in config.seeds}
    return {Run(arm, seed): f"{stage}__{arm}__seed{seed}" for arm in config.arms for seed in config.seeds}


def evaluation(config: CompareConfig, model: str, strength: float) -> StepSpec:
    """Return the evaluation of a model at a strength of tag noise."""
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
    return StepSpec("evaluate", values, f"{model} is asked, tag noise {strength:g}.")


def _stage_values(config: CompareConfig, stage: str, run: Run) -> dict[str, Any]:
    """Return the configuration of one training, as plain values."""
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
    dynamic = values.get("prompt", {}).get("kind") in ("dynamic", "both")
    if dynamic and config.tag_encoder is not None:
        values.setdefault("tag_encoder", config.tag_encoder)
    given = values.get("parents")
    if not given:
        raise UserError(f"Stage {stage!r} has no parents; name a model's folder, or an earlier stage.")
    parents = [given] if isinstance(given, str) else list(given)
    values["parents"] = [_parent(config, stage, spec, run, parent) for parent in parents]
    return values


def _parent(config: CompareConfig, stage: str, spec: StageSpec, run: Run, parent: str) -> str:
    """Return the step of this run that a parent's name means; a path or a registered model stays."""
    if parent not in config.stages:
        return parent
    if list(config.stages).index(parent) >= list(config.stages).index(stage):
        raise UserError(f"Stage {stage!r} has the parent {parent!r}, which does not come before it; change the order.")
    once_per = config.stages[parent].once_per
    if _RANK[once_per] > _RANK[spec.once_per]:
        raise UserError(
            f"Stage {stage!r} is trained once per {spec.once_per} and its parent {parent!r} once per {once_per}: it "
            "is not said which of them is meant; change once_per."
        )
    steps = instances(config, parent)
    for wanted in (run, Run("", run.seed), Run("", config.seeds[0])):
        if wanted in steps:
            return f"${{{steps[wanted]}}}"
    raise AssertionError(f"{parent} has no step for {run}")


def _refuse_seed(place: str, values: Mapping[str, Any]) -> None:
    if "seed" in values.get("loop", {}):
        raise UserError(f"{place}.loop.seed has no effect here; the trainings' seeds are given by `seeds`.")


def budget(settings: TrainStageConfig) -> dict[str, Any]:
    """What decides how much a training sees."""
    loop = settings.loop
    if loop.steps is not None:
        return {"loop.steps": loop.steps, "loop.batch_size": loop.batch_size}
    sizes = {"data": settings.data, "mix": settings.ratios, "validation_fraction": settings.validation_fraction}
    return {"loop.epochs": loop.epochs, "loop.batch_size": loop.batch_size, **sizes, "weights": settings.weights}


def _require_equal_budget(config: CompareConfig, stage: str, settings: Mapping[str, TrainStageConfig]) -> None:
    steps, seed = instances(config, stage), config.seeds[0]
    base = budget(settings[steps[Run(config.base_arm, seed)]])
    for arm in config.challengers:
        found = budget(settings[steps[Run(arm, seed)]])
        if found != base:
            names = sorted(name for name in {**base, **found} if base.get(name) != found.get(name))
            raise UserError(
                f"Arm {arm!r} does not get as much training as {config.base_arm!r} in stage {stage!r}: {names} differ. "
                "Leave them to the stage, or count in steps: loop.steps and loop.batch_size."
            )


def _require_same_held_out(settings: Mapping[str, TrainStageConfig]) -> None:
    """Refuse trainings that hold out different images: a stage would be validated on what one before it was trained on,
    and validation losses of the arms would be of different samples."""
    first, *others = settings
    expected = settings[first].held_out
    for name in others:
        if settings[name].held_out != expected:
            raise UserError(
                f"The training {name!r} holds out other images than {first!r} (validation_fraction and held_out_seed: "
                f"{settings[name].held_out} and {expected}); set both alike in all stages and arms."
            )


def _require_different(config: CompareConfig, settings: Mapping[str, TrainStageConfig]) -> None:
    """Two arms that are one training would be compared with themselves."""
    own = [stage for stage, spec in config.stages.items() if spec.once_per == "run"]
    seen: dict[str, str] = {}
    for arm in config.arms:
        trained = [settings[instances(config, stage)[Run(arm, config.seeds[0])]] for stage in own]
        text = str(canonical(trained)).replace(f"__{arm}__", "__")  # an arm's parents are named after it
        if text in seen:
            raise UserError(f"Arms {seen[text]!r} and {arm!r} are the same training; change one of them, or drop it.")
        seen[text] = arm
