"""Configuration of a comparison. Imports no heavy library, so that `--help` is fast."""

import dataclasses
import re
from typing import Any, Literal

from pipelines.core.errors import UserError
from pipelines.core.paths import names_field, path_field, settings_field
from pipelines.core.runtime import RayConfig
from pipelines.core.steps import runtime_field, runtime_group
from pipelines.evaluation.config import InferenceConfig
from pipelines.evaluation.tag_noise import TagErrors
from pipelines.registry import RegistryConfig
from pipelines.scoring.benchmarks import MIXED, benchmark_table
from pipelines.scoring.config import ScoringConfig
from pipelines.training.config import TrainStageConfig

OncePer = Literal["run", "seed", "comparison"]
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*")
_NO_ALIAS = re.compile(r"latest|v\d+", re.IGNORECASE)  # reserved by MLflow
FEWEST_SEEDS = 3
"""Smallest number of seeds for verdicts and p-values. One training does not show how much the result varies between
trainings, and the variance of two is too uncertain for a useful interval."""
_FEW = {1: "one seed", 2: "two seeds"}


def evidence(seeds: int) -> str:
    """Return the number of seeds that the differences are based on, in words: "one seed: a hint", or "3 seeds"."""
    return f"{_FEW[seeds]}: a hint" if seeds < FEWEST_SEEDS else f"{seeds} seeds"


@dataclasses.dataclass(frozen=True)
class StageSpec:
    """One training stage of every arm."""

    train: dict[str, Any] = settings_field(lambda _: TrainStageConfig)
    """Fields of `jobs.train_stage`, for example `{stage: 1, loop: {steps: 500}}`. `parents` may name earlier stages of
    the comparison. Leave out `data`, `tagged` and `loop.seed`: the comparison sets them."""
    once_per: OncePer = "run"
    """How often the stage is trained. run: for each arm and seed, with the arm's changes. seed: once per seed, for all
    arms. comparison: once, for all arms and seeds. A shared stage does not get the arms' changes; use it for
    what comes before the arms differ, to save training time."""
    why: str = ""
    """The purpose of this stage in one sentence; it is logged when the stage begins."""


@dataclasses.dataclass(frozen=True)
class NoiseCurve(TagErrors):
    """The strengths of tag noise at which the arms are also evaluated."""

    levels: list[float] = dataclasses.field(default_factory=lambda: [0.25, 0.5, 1.0])
    """Strengths above 0, up to 1. Strength 0 (tags unchanged) is always evaluated; an empty list evaluates it alone.
    Each strength adds one evaluation for each arm and seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 < level <= 1 for level in self.levels) or len(set(self.levels)) < len(self.levels):
            raise UserError(f"noise.levels is {self.levels}; use different strengths above 0, up to 1.")


@dataclasses.dataclass(frozen=True)
class ChampionRule:
    """The rule by which a model of the best arm becomes the champion.

    The best arm is the arm with the highest mean; its median seed is the candidate, because the lead of its best seed
    is partly noise of the test questions. With fewer than three seeds the alias does not move (see `allow_one_seed`).
    """

    metric: str | None = None
    """The metric that decides, as TASK.METRIC: for example caption.CIDEr or rec.acc@0.5. If empty, the rule is off and
    the alias does not move."""
    margin: float = 0.0
    """Smallest lead over the current champion on the same questions, as a fraction: 0.01 is one percentage point."""
    exclude_zero: bool = True
    """Whether the 95 % interval of that lead must also be above 0."""
    alias: str = "champion"
    """Alias of the champion in the registry. If no version has it, the best arm's candidate gets it."""
    allow_one_seed: bool = False
    """Whether a comparison of one or two seeds may move the alias, too. Which arm is ahead may then be luck: set it
    only to try the commands, when any model may be the champion."""


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Trains several arms with equal budget and several seeds, evaluates them on the same questions, and reports their
    differences."""

    data: str = path_field("input", "")
    """Folder of the `instructions` for training."""
    tagged: str = path_field("input", "")
    """Folder of the `tagged` table of the training images."""
    test_data: str = path_field("input", "")
    """Folder of the `instructions` for evaluation, which every arm answers; `jobs.instructions` writes them in mode
    evaluate."""
    test_tagged: str = path_field("input", "")
    """Folder of the `tagged` table of the evaluation images."""
    tag_encoder: str | None = path_field("model", None)
    """Tag encoder for the arms that have a dynamic prompt and no `tag_encoder`: a folder or models:/NAME@ALIAS."""
    stages: dict[str, StageSpec] = names_field()
    """The training stages by name, in order. The model of the last stage is evaluated."""
    arms: dict[str, dict[str, Any]] = settings_field(lambda _: TrainStageConfig, each=True)
    """The arms by name, each with its changes to the stages that are trained once per run, as fields of
    `jobs.train_stage`: for example `static: {prompt: {kind: static}}`. All arms must train for the same number of steps
    and samples. The first seed's model gets the arm's name as its alias: models:/NAME@static."""
    baseline: str | None = None
    """Name of the arm that the others are compared with. If empty, the first arm."""
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0, 1, 2])
    """Seeds of training; each arm is trained once with each seed. With fewer than three seeds the report has no
    verdicts and no p-values ("one seed: a hint", "two seeds: a hint"), and the champion stays."""
    benchmark: str = MIXED
    """Which questions of `test_data` are used: the name of a benchmark or of a task, or `mixed` for all."""
    noise: NoiseCurve = dataclasses.field(default_factory=NoiseCurve)
    resamples: int = 2000
    """Number of bootstrap draws of images, at least 100. More draws make the intervals more exact and take longer."""
    examples: int = 4
    """Number of questions of each task in each section of the report's gallery."""
    champion: ChampionRule = dataclasses.field(default_factory=ChampionRule)
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)
    scoring: ScoringConfig = dataclasses.field(default_factory=ScoringConfig)
    at_once: int = runtime_field(1)
    """Number of trainings, and then of evaluations, that run at the same time, each in a separate process. A cluster
    must have room for the workers of all of them; on one machine the processes share its cores."""
    name: str = runtime_field("")
    """Name in the registry of the models of the last stage. If empty, the stage's default, for example lion-stage3."""
    registry: RegistryConfig = runtime_group(RegistryConfig)
    ray: RayConfig = runtime_group(RayConfig)
    out: str = path_field("output", "runs")
    """Folder or URI for the results of the trainings, the evaluations and the comparison."""

    @property
    def base_arm(self) -> str:
        """Name of the arm that the others are compared with."""
        return self.baseline or next(iter(self.arms))

    @property
    def challengers(self) -> list[str]:
        """Names of the other arms."""
        return [arm for arm in self.arms if arm != self.base_arm]

    @property
    def strengths(self) -> list[float]:
        """Strengths of tag noise, 0 first."""
        return [0.0, *sorted(self.noise.levels)]


def check(config: CompareConfig) -> None:
    """Refuse an invalid configuration before any file is read.

    Raises:
        UserError: a field has a value that no comparison can use.
    """
    for field in ("data", "tagged", "test_data", "test_tagged"):
        if not getattr(config, field):
            raise UserError(f"{field} is empty; set it to the `path` that the step which wrote it printed.")
    if len(config.arms) < 2:
        raise UserError(
            f"arms has {len(config.arms)} entries; a comparison needs at least two, such as static: and dynamic:."
        )
    if not config.registry.register:
        raise UserError(
            "registry.register is false, but a comparison loads its models from the registry; leave the setting out."
        )
    if not config.stages:
        raise UserError("stages is empty: there are no stages to train; add at least one.")
    for name in (*config.arms, *config.stages):
        if not _NAME.fullmatch(name):
            raise UserError(
                f"The name {name!r} of an arm or a stage is invalid; use letters and digits, with single _ between."
            )
    for name in config.arms:
        if _NO_ALIAS.fullmatch(name) or name == config.champion.alias:
            raise UserError(
                f"The arm {name!r} cannot give its model that alias; MLflow or champion.alias uses it. Rename the arm."
            )
    if config.baseline is not None and config.baseline not in config.arms:
        raise UserError(f"baseline {config.baseline!r} is no arm; use one of {list(config.arms)}.")
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise UserError(f"seeds is {config.seeds}; list at least one seed, each once.")
    if config.resamples < 100 or config.examples < 1:
        raise UserError(
            f"resamples is {config.resamples} and examples is {config.examples}; use at least 100 and at least 1."
        )
    if config.at_once < 1:
        raise UserError(f"at_once is {config.at_once}; at least one training must run at a time: use 1 or more.")
    config.inference.check()
    if config.benchmark != MIXED:
        benchmark_table().find(config.benchmark)
    *_, (last, spec) = config.stages.items()
    if spec.once_per != "run":
        raise UserError(
            f"The last stage {last!r} is shared by the arms, so the arms could not differ; set its once_per to run."
        )
