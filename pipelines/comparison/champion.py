"""The champion: which version bears the alias is decided by a rule of the configuration, never by hand."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.comparison.config import ChampionRule
from pipelines.comparison.plan import Run
from pipelines.comparison.results import Document, Evaluation, Results, measure_group
from pipelines.comparison.statistics import Interval, interval
from pipelines.errors import UserError
from pipelines.registry import Registry

log = logging.getLogger("lion.compare")


@dataclass(frozen=True)
class Decision:
    """What the rule said.

    Attributes:
        metric: the number that decided.
        alias: which alias.
        candidate: the version that stood for the best arm, as models:/NAME/VERSION.
        run: the arm and seed that it is of.
        value: its number.
        champion: the version that bore the alias; None: none did.
        champion_value: its number on the same questions.
        difference, low, high: what the candidate is better by, with the 95 % interval of the two given models.
        moved: whether the alias goes to the candidate.
        reason: the same for people.
    """

    metric: str
    alias: str
    candidate: str
    run: str
    value: float
    champion: str | None
    champion_value: float | None
    difference: float | None
    low: float | None
    high: float | None
    moved: bool
    reason: str

    def as_dict(self) -> Document:
        """Plain JSON values."""
        return dataclasses.asdict(self)


def group_of(rule: ChampionRule, primaries: Mapping[str, str]) -> str:
    """The group whose number decides.

    Args:
        rule: with a metric.
        primaries: the primary number's name by group.

    Raises:
        UserError: the comparison does not measure that number.
    """
    names = {f"{group}.{primary}": group for group, primary in primaries.items()}
    if rule.metric not in names:
        raise UserError(f"champion.metric {rule.metric!r} is not measured here; there are {', '.join(names)}.")
    return names[rule.metric]


def candidate(results: Results, group: str, arms: Document) -> Run:
    """The run that stands for the best arm: of the arm with the highest mean, the seed in the middle (of an even number
    the lower one)."""
    best = max(results.arms, key=lambda arm: arms[arm]["value"])
    values = np.asarray(arms[best]["by_seed"])
    middle = np.argsort(values, kind="stable")[(len(values) - 1) // 2]
    return Run(best, results.seeds[int(middle)])


def decide(
    rule: ChampionRule,
    results: Results,
    document: Document,
    models: Mapping[Run, str],
    registry: Registry,
    ask: Callable[[str], Evaluation],
    resamples: int,
) -> Decision:
    """What the rule says of the comparison's best arm and the present champion. Moves nothing.

    Args:
        rule: with a metric.
        results: all evaluations.
        document: as `results.analyse` made it.
        models: models:/NAME/VERSION of every run, all of one name.
        registry: where the champion is.
        ask: evaluates a model on the comparison's questions, without noise.
        resamples: draws of the bootstrap.
    """
    group = group_of(rule, {key: found["primary"] for key, found in document["groups"].items()})
    run = candidate(results, group, document["groups"][group]["arms"])
    contender = results.evaluations[run, 0.0]
    name = models[run].removeprefix("models:/").partition("/")[0]
    version = registry.client.get_registered_model(name).aliases.get(rule.alias)
    champion = None if version is None else f"models:/{name}/{version}"
    place = list(results.seeds).index(run.seed)
    value = document["groups"][group]["arms"][run.arm]["by_seed"][place]
    if champion is None or champion == models[run]:
        moved = champion is None
        reason = f"no version was @{rule.alias}" if moved else f"it is @{rule.alias} already"
        return Decision(
            str(rule.metric), rule.alias, models[run], str(run), value, champion, None if moved else value,
            None, None, None, moved, reason,
        )  # fmt: skip
    both = measure_group({"candidate": [contender], "champion": [ask(champion)]}, group, resamples)
    found = interval(both["candidate"] - both["champion"])
    moved, reason = judge(rule, found)
    return Decision(
        str(rule.metric), rule.alias, models[run], str(run), value, champion, float(both["champion"].seeds[0]),
        found.value, found.low, found.high, moved, reason,
    )  # fmt: skip


def judge(rule: ChampionRule, difference: Interval) -> tuple[bool, str]:
    """Whether a difference from the champion suffices, and why."""
    if difference.value <= 0 or difference.value < rule.margin:
        return False, f"the difference {difference.value:+.4f} is not enough (margin {rule.margin:g})"
    if rule.exclude_zero and difference.low <= 0:
        return False, f"the interval {difference.low:+.4f} to {difference.high:+.4f} does not exclude 0"
    return True, f"better by {difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"


def crown(decision: Decision, registry: Registry) -> None:
    """Carries a decision out; doing so again changes nothing."""
    log.info("@%s: %s %s: %s", decision.alias, decision.candidate, "gets it" if decision.moved else "does not get it",
             decision.reason)  # fmt: skip
    if decision.moved:
        name, version = decision.candidate.removeprefix("models:/").split("/")
        registry.set_alias(name, decision.alias, int(version))
