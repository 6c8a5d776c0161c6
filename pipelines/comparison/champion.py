"""The champion rule: the configuration decides which model version has the alias, not a person."""

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
    """The result of the champion rule.

    Attributes:
        metric: the metric of the rule, as TASK.METRIC.
        alias: the alias that may move.
        candidate: the model version that represents the best arm, as models:/NAME/VERSION.
        run: the candidate's arm and seed, as text.
        value: the candidate's value of the metric.
        champion: the version that had the alias before; None if no version had it.
        champion_value: the champion's value of the metric on the same questions; None if it was not evaluated.
        difference, low, high: candidate minus champion, with the 95 % interval of these two models.
        evidence: the number of seeds that the choice is based on: "one seed: a hint", or "3 seeds".
        moved: whether the candidate gets the alias.
        reason: a sentence that explains `moved`.
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
        """Return the decision as plain JSON values."""
        return dataclasses.asdict(self)


def group_of(rule: ChampionRule, primaries: Mapping[str, str]) -> str:
    """Return the group of questions that the rule's metric belongs to.

    Args:
        rule: the champion rule; its metric is set.
        primaries: the name of the primary metric of each group.

    Raises:
        UserError: the comparison does not measure the rule's metric.
    """
    names = {f"{group}.{primary}": group for group, primary in primaries.items()}
    if rule.metric not in names:
        raise UserError(
            f"champion.metric {rule.metric!r} is not measured by this comparison; use one of {', '.join(names)}."
        )
    return names[rule.metric]


def candidate(results: Results, group: str, arms: Document) -> Run:
    """Return the run that represents the best arm: the median seed of the arm with the highest mean.

    For an even number of seeds it is the lower of the two middle ones. The best seed would be a biased choice: its lead
    is partly noise of the test questions.
    """
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
    evaluate: Callable[[str], Evaluation],
    resamples: int,
) -> Decision:
    """Evaluate the champion rule for the best arm and the current champion, without moving the alias.

    With fewer than `FEWEST_SEEDS` seeds the alias does not move, even if no version has it, unless `allow_one_seed` is
    set.

    Args:
        rule: the champion rule; its metric is set.
        results: all evaluations of the comparison.
        document: the return value of `results.analyze`.
        models: the registered model of every run, as models:/NAME/VERSION; all have the same NAME.
        registry: the model registry, which has the current champion.
        evaluate: a function that evaluates a model on the comparison's questions, without tag noise.
        resamples: number of bootstrap draws.
    """
    group = group_of(rule, {name: numbers["primary"] for name, numbers in document["groups"].items()})
    run = candidate(results, group, document["groups"][group]["arms"])
    contender = results.evaluations[run, 0.0]
    name = models[run].removeprefix("models:/").partition("/")[0]
    version = registry.client.get_registered_model(name).aliases.get(rule.alias)
    champion = None if version is None else f"models:/{name}/{version}"
    position = list(results.seeds).index(run.seed)
    value = document["groups"][group]["arms"][run.arm]["by_seed"][position]
    seeds = len(results.seeds)
    basis = evidence(seeds)
    current_value = value if champion == models[run] else None
    if seeds < FEWEST_SEEDS and not rule.allow_one_seed:
        reason = (
            f"{basis}, and no alias moves on fewer than {FEWEST_SEEDS} seeds; add seeds, or set "
            "champion.allow_one_seed if any model may be the champion"
        )
        return Decision(
            str(rule.metric), rule.alias, models[run], str(run), value, champion, current_value,
            None, None, None, basis, False, reason,
        )  # fmt: skip
    if champion is None or champion == models[run]:
        moved = champion is None
        reason = (
            f"no version had the alias @{rule.alias}" if moved else f"this version has the alias @{rule.alias} already"
        )
        return Decision(
            str(rule.metric), rule.alias, models[run], str(run), value, champion, current_value,
            None, None, None, basis, moved, _reason(basis, seeds, moved, reason),
        )  # fmt: skip
    measured = measure_group({"candidate": [contender], "champion": [evaluate(champion)]}, group, resamples)
    span = find_metric(document["groups"][group]["metric"]).span
    difference = interval(measured["candidate"] - measured["champion"]).within(-span, span)
    moved, reason = judge(rule, difference)
    return Decision(
        str(rule.metric), rule.alias, models[run], str(run), value, champion, float(measured["champion"].seeds[0]),
        difference.value, difference.low, difference.high, basis, moved, _reason(basis, seeds, moved, reason),
    )  # fmt: skip


def _reason(basis: str, seeds: int, moved: bool, reason: str) -> str:
    """Return the reason, with the number of seeds in front if there are too few for a verdict."""
    if seeds >= FEWEST_SEEDS:
        return reason
    return f"{basis}, alias set because allow_one_seed: {reason}" if moved else f"{basis}: {reason}"


def judge(rule: ChampionRule, difference: Interval) -> tuple[bool, str]:
    """Return whether a difference from the champion is large enough to move the alias, and the reason as a sentence."""
    if difference.value <= 0 or difference.value < rule.margin:
        return False, f"the difference {difference.value:+.4f} is too small (margin {rule.margin:g})"
    if rule.exclude_zero and difference.low <= 0:
        return False, f"the 95 % interval {difference.low:+.4f} to {difference.high:+.4f} includes 0"
    return True, (
        f"the difference {difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f}) between the two "
        f"models is large enough (margin {rule.margin:g})"
    )


def apply_decision(decision: Decision, registry: Registry) -> None:
    """Move the alias if the decision says so, and tag the version with the evidence. A second call changes nothing."""
    log.info("Champion rule: %s %s the alias @%s: %s.", decision.candidate,
             "gets" if decision.moved else "does not get", decision.alias, decision.reason)  # fmt: skip
    if decision.moved:
        name, version = decision.candidate.removeprefix("models:/").split("/")
        registry.set_alias(name, decision.alias, int(version))
        for key, text in (("evidence", decision.evidence), ("reason", decision.reason)):
            registry.client.set_model_version_tag(name, version, f"{decision.alias}.{key}", text)
