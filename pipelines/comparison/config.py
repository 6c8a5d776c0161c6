"""What a comparison is asked to do. Nothing heavy is imported here: `--help` reads it."""

import dataclasses
import re
from typing import Any, Literal

from pipelines.core.errors import UserError
from pipelines.core.paths import names_field, path_field, settings_field
from pipelines.core.runtime import RayConfig
from pipelines.core.steps import runtime_field, runtime_group
from pipelines.evaluation.distributed import InferenceConfig
from pipelines.evaluation.tag_noise import TagErrors
from pipelines.registry import RegistryConfig
from pipelines.scoring.benchmarks import MIXED, benchmark_table
from pipelines.scoring.config import ScoringConfig
from pipelines.training.config import TrainStageConfig

OncePer = Literal["run", "seed", "comparison"]
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*")
_NO_ALIAS = re.compile(r"latest|v\d+", re.IGNORECASE)  # MLflow keeps these for itself
FEWEST_SEEDS = 3
"""Seeds from which on a comparison gives verdicts. One training says nothing of how another would have ended, and the
spread of two is not known well enough for an interval of any use."""
_FEW = {1: "one seed", 2: "two seeds"}


def evidence(seeds: int) -> str:
    """Return what a comparison's differences rest on, in words: "one seed: a hint", or "3 seeds"."""
    return f"{_FEW[seeds]}: a hint" if seeds < FEWEST_SEEDS else f"{seeds} seeds"


@dataclasses.dataclass(frozen=True)
class StageSpec:
    """One training of every arm."""

    train: dict[str, Any] = settings_field(lambda _: TrainStageConfig)
    """Fields of `jobs.train_stage`. `parents` may name earlier stages of the comparison; `data` and `tagged` are the
    comparison's, and the seed is given by `seeds`."""
    once_per: OncePer = "run"
    """run: for each arm and seed, with the arm's changes. What comes before the arms differ may be trained once and be
    shared, without the arms' changes: once per seed by all arms, or once in the comparison by all arms and seeds."""
    why: str = ""
    """One sentence for the person who watches: what this training is for."""


@dataclasses.dataclass(frozen=True)
class NoiseCurve(TagErrors):
    """At which strengths of tag noise the arms are also evaluated."""

    levels: list[float] = dataclasses.field(default_factory=lambda: [0.25, 0.5, 1.0])
    """Strengths besides 0; none: only the tags as they are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 < level <= 1 for level in self.levels) or len(set(self.levels)) < len(self.levels):
            raise UserError(f"noise.levels are {self.levels}; give different strengths above 0, up to 1.")


@dataclasses.dataclass(frozen=True)
class ChampionRule:
    """When the best arm becomes the champion: not with fewer than three seeds. Of the arm with the highest mean, the
    seed in the middle stands for it: the luckiest seed would be chosen by the test's own noise."""

    metric: str | None = None
    """Which of the comparison's numbers decides, as TASK.METRIC, such as caption.CIDEr or rec.acc@0.5; empty: the
    champion stays whatever the numbers are."""
    margin: float = 0.0
    """By how much it must be better than the present champion on the same questions; a fraction: 0.01 is one point."""
    exclude_zero: bool = True
    """Whether the 95 % interval of that difference must also lie above 0."""
    alias: str = "champion"
    """The alias that moves. Where no version bears it, the best arm gets it."""
    allow_one_seed: bool = False
    """Whether a comparison of one or two seeds may move the alias, too. Which arm is ahead is then as likely luck as
    not: for trying the commands, where any model may be the champion."""


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Trains arms that differ in one thing at equal budget with several seeds, and says what the difference makes."""

    data: str = path_field("input", "")
    """Folder of the training `instructions`."""
    tagged: str = path_field("input", "")
    """Folder of their images' `tagged` table."""
    test_data: str = path_field("input", "")
    """Folder of the `instructions` that all arms are asked, made in mode evaluate."""
    test_tagged: str = path_field("input", "")
    """Folder of their images' `tagged` table."""
    tag_encoder: str | None = path_field("model", None)
    """The tag encoder of every arm with a dynamic prompt that names none: a folder or models:/NAME@ALIAS."""
    stages: dict[str, StageSpec] = names_field()
    """The trainings of an arm by name, in order; the last one's model is evaluated."""
    arms: dict[str, dict[str, Any]] = settings_field(lambda _: TrainStageConfig, each=True)
    """What each arm changes in the stages trained once per run, as fields of `jobs.train_stage`. The amount of training
    must stay equal. The model of the first seed gets the arm's name as its alias: models:/NAME@static."""
    baseline: str | None = None
    """The arm that the others are compared with; empty: the first."""
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0, 1, 2])
    """Each arm is trained once with each. With fewer than three the report gives no verdict and no p-value: it says
    "one seed: a hint" (or "two seeds"), and no champion moves."""
    benchmark: str = MIXED
    """What of the test data is asked: a benchmark's or a task's name, or `mixed`."""
    noise: NoiseCurve = dataclasses.field(default_factory=NoiseCurve)
    resamples: int = 2000
    """Draws of the bootstrap over images."""
    examples: int = 4
    """Questions of each task in each part of the report's gallery."""
    champion: ChampionRule = dataclasses.field(default_factory=ChampionRule)
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)
    scoring: ScoringConfig = dataclasses.field(default_factory=ScoringConfig)
    at_once: int = runtime_field(1)
    """Trainings, and then evaluations, that run at the same time, each in a process of its own. On a cluster there must
    be room for the workers of so many trainings; processes of this machine share its cores."""
    name: str = runtime_field("")
    """The name of the last stage's models in the registry; empty: that of the stage, such as lion-stage3."""
    registry: RegistryConfig = runtime_group(RegistryConfig)
    ray: RayConfig = runtime_group(RayConfig)
    out: str = path_field("output", "runs")
    """Folder or URI under which the results of every training, of every evaluation and of the comparison lie."""

    @property
    def base_arm(self) -> str:
        """The arm that the others are compared with."""
        return self.baseline or next(iter(self.arms))

    @property
    def challengers(self) -> list[str]:
        """The other arms."""
        return [arm for arm in self.arms if arm != self.base_arm]

    @property
    def strengths(self) -> list[float]:
        """Strengths of tag noise, 0 first."""
        return [0.0, *sorted(self.noise.levels)]


def check(config: CompareConfig) -> None:
    """Refuse what no comparison can work with, before anything is read.

    Raises:
        UserError: says what to change.
    """
    for field in ("data", "tagged", "test_data", "test_tagged"):
        if not getattr(config, field):
            raise UserError(f"{field} is empty; give the `path` of the step that made it.")
    if len(config.arms) < 2:
        raise UserError(
            f"There are {len(config.arms)} arms; a comparison needs at least two, such as static: and dynamic:."
        )
    if not config.registry.register:
        raise UserError("registry.register is false, and a comparison asks its models by their versions; leave it out.")
    if not config.stages:
        raise UserError("There are no stages; name at least one training that every arm gets.")
    for name in (*config.arms, *config.stages):
        if not _NAME.fullmatch(name):
            raise UserError(
                f"The name {name!r} of an arm or a stage must be letters and digits, with single _ between."
            )
    for name in config.arms:
        if _NO_ALIAS.fullmatch(name) or name == config.champion.alias:
            raise UserError(f"The arm {name!r} cannot give its model that alias; choose another name.")
    if config.baseline is not None and config.baseline not in config.arms:
        raise UserError(f"baseline {config.baseline!r} is no arm; the arms are {list(config.arms)}.")
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise UserError(f"seeds are {config.seeds}; give at least one, each once.")
    if config.resamples < 100 or config.examples < 1:
        raise UserError("resamples must be at least 100 and examples at least 1.")
    if config.at_once < 1:
        raise UserError(f"at_once is {config.at_once}; at least one training has to run at a time.")
    config.inference.check()
    if config.benchmark != MIXED:
        benchmark_table().find(config.benchmark)
    *_, (last, spec) = config.stages.items()
    if spec.once_per != "run":
        raise UserError(
            f"The last stage {last!r} is shared by the arms, so that they could not differ; set once_per: run."
        )
