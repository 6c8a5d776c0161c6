"""The champion: which version bears the alias is decided by a rule of the configuration, never by hand."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.comparison.config import FEWEST_SEEDS, ChampionRule, evidence
from pipelines.comparison.plan import Run
from pipelines.comparison.results import Document, Evaluation, Results, measure_group
from pipelines.comparison.statistics import Interval, interval
from pipelines.core.errors import UserError
from pipelines.registry import Registry
from pipelines.scoring.metrics.catalog import find_metric

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
        difference, low, high: the candidate's number less the champion's, with the 95 % interval of these two models.
        evidence: what the choice of the candidate rests on: "one seed: a hint", or "3 seeds".
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
    evidence: str
    moved: bool
    reason: str

    def as_dict(self) -> Document:
        """Plain JSON values."""
        return dataclasses.asdict(self)


def group_of(rule: ChampionRule, primaries: Mapping[str, str]) -> str:
    """Return the group whose number decides.

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
    """Evaluate the rule on the comparison's best arm and the present champion, without moving the alias.

    With fewer than `FEWEST_SEEDS` seeds the alias stays whatever the numbers are, also where no version has it, unless
    `allow_one_seed`.

    Args:
        rule: with a metric.
        results: all evaluations.
        document: as `results.analyze` made it.
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
    seeds = len(results.seeds)
    basis = evidence(seeds)
    own = value if champion == models[run] else None
    if seeds < FEWEST_SEEDS and not rule.allow_one_seed:
        reason = (
            f"{basis}, and no alias moves on fewer than {FEWEST_SEEDS} seeds; add seeds, or set "
            "champion.allow_one_seed where any model will do"
        )
        return Decision(
            str(rule.metric), rule.alias, models[run], str(run), value, champion, own,
            None, None, None, basis, False, reason,
        )  # fmt: skip
    if champion is None or champion == models[run]:
        moved = champion is None
        reason = f"no version was @{rule.alias}" if moved else f"it is @{rule.alias} already"
        return Decision(
            str(rule.metric), rule.alias, models[run], str(run), value, champion, own,
            None, None, None, basis, moved, _reason(basis, seeds, moved, reason),
        )  # fmt: skip
    both = measure_group({"candidate": [contender], "champion": [ask(champion)]}, group, resamples)
    span = find_metric(document["groups"][group]["metric"]).span
    found = interval(both["candidate"] - both["champion"]).within(-span, span)
    moved, reason = judge(rule, found)
    return Decision(
        str(rule.metric), rule.alias, models[run], str(run), value, champion, float(both["champion"].seeds[0]),
        found.value, found.low, found.high, basis, moved, _reason(basis, seeds, moved, reason),
    )  # fmt: skip


def _reason(basis: str, seeds: int, moved: bool, reason: str) -> str:
    """Return the reason, behind what it rests on where that is a hint."""
    if seeds >= FEWEST_SEEDS:
        return reason
    return f"{basis}, alias set because allow_one_seed: {reason}" if moved else f"{basis}: {reason}"


def judge(rule: ChampionRule, difference: Interval) -> tuple[bool, str]:
    """Whether a difference from the champion suffices, and why."""
    if difference.value <= 0 or difference.value < rule.margin:
        return False, f"the difference {difference.value:+.4f} is not enough (margin {rule.margin:g})"
    if rule.exclude_zero and difference.low <= 0:
        return False, f"the interval {difference.low:+.4f} to {difference.high:+.4f} does not exclude 0"
    return True, (
        f"the difference {difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f}) between the two "
        f"models is enough (margin {rule.margin:g})"
    )


def apply_decision(decision: Decision, registry: Registry) -> None:
    """Carry a decision out, and note on the version what its alias rests on; doing so again changes nothing."""
    log.info("@%s: %s %s: %s", decision.alias, decision.candidate, "gets it" if decision.moved else "does not get it",
             decision.reason)  # fmt: skip
    if decision.moved:
        name, version = decision.candidate.removeprefix("models:/").split("/")
        registry.set_alias(name, decision.alias, int(version))
        for key, text in (("evidence", decision.evidence), ("reason", decision.reason)):
            registry.client.set_model_version_tag(name, version, f"{decision.alias}.{key}", text)
