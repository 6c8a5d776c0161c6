"""The champion rule on a real MLflow, with constructed answers: when the alias moves and when it does not."""

import dataclasses
from collections.abc import Callable

import pytest

from pipelines.comparison.champion import Decision, apply_decision, candidate, decide, group_of, judge
from pipelines.comparison.config import ChampionRule, CompareConfig, NoiseCurve
from pipelines.comparison.plan import Run
from pipelines.comparison.results import Document, Evaluation, Results, analyze, read_evaluation
from pipelines.comparison.statistics import Interval
from pipelines.core.errors import UserError
from pipelines.registry import Registry, RegistryConfig
from tests.pipelines.comparison.answers import all_results, evaluated, write_world

RULE = ChampionRule(metric="vqa.soft_accuracy")


@dataclasses.dataclass(frozen=True)
class Candidates:
    """A comparison in which the dynamic arm answers 7 of 10 questions correctly and the static arm 3 of 10."""

    results: Results
    document: Document
    models: dict[Run, str]
    registry: Registry
    evaluate: Callable[[str], Evaluation]

    def decide(self, rule: ChampionRule) -> Decision:
        """Evaluate the champion rule."""
        return decide(rule, self.results, self.document, self.models, self.registry, self.evaluate, 300)

    @property
    def champion(self) -> str | None:
        """The version with the alias. MLflow's SQL store returns a number, its server a string."""
        version = self.registry.client.get_registered_model("lion").aliases.get("champion")
        return version and str(version)


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Candidates:
    root = tmp_path_factory.mktemp("champion")
    data, tagged, rows = write_world(root, 15)
    config = CompareConfig(
        test_data=data, test_tagged=tagged, arms={"static": {}, "dynamic": {}}, seeds=[0, 1, 2],
        noise=NoiseCurve(levels=[]), resamples=300,
    )  # fmt: skip
    results = all_results(root / "answers", config, rows, lambda arm, *_: 0.3 if arm == "dynamic" else 0.7)
    registry = Registry(RegistryConfig(), str(root / "runs"))
    registry.client.create_registered_model("lion")
    models = {}
    for run in [Run(arm, seed) for arm in config.arms for seed in config.seeds]:
        version = registry.client.create_model_version("lion", str(root))
        models[run] = f"models:/lion/{version.version}"
    silent = read_evaluation(evaluated(root / "silent", data, rows, lambda row: ""))
    right = read_evaluation(evaluated(root / "right", data, rows, lambda row: str(row["answers"][0])))
    other = {"models:/lion/7": silent, "models:/lion/8": right}
    for _ in other:
        registry.client.create_model_version("lion", str(root))
    own = {model: results.evaluations[run, 0.0] for run, model in models.items()}
    return Candidates(results, analyze(config, results), models, registry, lambda model: (other | own)[model])


def test_the_seed_in_the_middle_stands_for_the_best_arm(candidates: Candidates) -> None:
    arms = candidates.document["groups"]["vqa"]["arms"]
    run = candidate(candidates.results, "vqa", arms)
    by_seed = arms["dynamic"]["by_seed"]
    assert run.arm == "dynamic"
    assert by_seed[run.seed] == sorted(by_seed)[1]


def test_without_a_champion_the_best_arm_becomes_it(candidates: Candidates) -> None:
    if candidates.champion:
        candidates.registry.client.delete_registered_model_alias("lion", "champion")
    decision = candidates.decide(RULE)
    assert decision.moved
    assert candidates.champion is None  # deciding moves nothing
    apply_decision(decision, candidates.registry)
    assert decision.candidate == f"models:/lion/{candidates.champion}"
    again = candidates.decide(RULE)
    assert not again.moved
    assert "already" in again.reason


def test_a_worse_champion_is_replaced(candidates: Candidates) -> None:
    candidates.registry.set_alias("lion", "champion", 7)
    decision = candidates.decide(RULE)
    assert decision.champion == "models:/lion/7"
    assert decision.champion_value == 0.0
    assert decision.moved
    assert decision.low is not None
    assert decision.low > 0
    apply_decision(decision, candidates.registry)
    apply_decision(decision, candidates.registry)
    assert decision.candidate == f"models:/lion/{candidates.champion}"


def test_a_better_champion_stays(candidates: Candidates) -> None:
    candidates.registry.set_alias("lion", "champion", 8)
    decision = candidates.decide(RULE)
    assert not decision.moved
    apply_decision(decision, candidates.registry)
    assert candidates.champion == "8"


@pytest.mark.parametrize("count, words", [(1, "one seed: a hint"), (2, "two seeds: a hint")])
@pytest.mark.parametrize("version", [None, 7], ids=["no champion", "a worse champion"])
def test_fewer_than_three_seeds_move_the_alias_only_where_that_is_allowed(
    candidates: Candidates, count: int, words: str, version: int | None
) -> None:
    registry, seeds = candidates.registry, [0, 1, 2][:count]
    kept = {key: evaluation for key, evaluation in candidates.results.evaluations.items() if key[0].seed in seeds}
    results = Results(kept, candidates.results.arms, seeds)
    config = CompareConfig(arms={"static": {}, "dynamic": {}}, seeds=seeds, noise=NoiseCurve(levels=[]), resamples=300)
    few = dataclasses.replace(candidates, results=results, document=analyze(config, results))
    if candidates.champion:
        registry.client.delete_registered_model_alias("lion", "champion")
    if version is not None:
        registry.set_alias("lion", "champion", version)
    decision = few.decide(RULE)
    apply_decision(decision, registry)
    assert not decision.moved
    assert decision.evidence == words
    assert decision.reason.startswith(f"{words}, and no alias moves on fewer than 3 seeds")
    assert (decision.difference, decision.champion_value) == (None, None)
    assert candidates.champion == (version and str(version))
    allowed = few.decide(dataclasses.replace(RULE, allow_one_seed=True))
    apply_decision(allowed, registry)
    assert allowed.moved
    assert allowed.reason.startswith(f"{words}, alias set because allow_one_seed: ")
    assert allowed.candidate == f"models:/lion/{candidates.champion}"
    tags = registry.client.get_model_version_by_alias("lion", "champion").tags
    assert (tags["champion.evidence"], tags["champion.reason"]) == (words, allowed.reason)
    # The rule's other conditions still apply: a margin that is not reached keeps the champion.
    registry.set_alias("lion", "champion", 7)
    refused = few.decide(dataclasses.replace(RULE, allow_one_seed=True, margin=0.95))
    assert not refused.moved
    assert refused.reason.startswith(f"{words}: the difference")


def test_a_margin_that_is_not_reached_keeps_the_champion(candidates: Candidates) -> None:
    candidates.registry.set_alias("lion", "champion", 7)
    decision = candidates.decide(dataclasses.replace(RULE, margin=0.95))
    apply_decision(decision, candidates.registry)
    assert "margin 0.95" in decision.reason
    assert candidates.champion == "7"


@pytest.mark.parametrize(
    "rule, difference, moves",
    [
        (ChampionRule("x"), Interval(0.02, 0.01, 0.03, 0.01), True),
        (ChampionRule("x"), Interval(0.02, -0.01, 0.05, 0.2), False),
        (ChampionRule("x", exclude_zero=False), Interval(0.02, -0.01, 0.05, 0.2), True),
        (ChampionRule("x", margin=0.05), Interval(0.02, 0.01, 0.03, 0.01), False),
        (ChampionRule("x", margin=0.02), Interval(0.02, 0.01, 0.03, 0.01), True),
        (ChampionRule("x", exclude_zero=False), Interval(0.0, 0.0, 0.0, 1.0), False),
        (ChampionRule("x", exclude_zero=False), Interval(-0.02, -0.05, 0.01, 0.2), False),
    ],
)
def test_the_rule_reads_margin_and_interval(rule: ChampionRule, difference: Interval, moves: bool) -> None:
    moved, reason = judge(rule, difference)
    assert moved is moves
    assert reason


def test_a_number_that_is_not_measured_is_named() -> None:
    with pytest.raises(UserError, match=r"is not measured.*use one of rec\.acc@0\.5"):
        group_of(ChampionRule("rec.acc"), {"rec": "acc@0.5"})


def test_numbers_are_found_by_their_whole_name() -> None:
    assert group_of(ChampionRule("a.b:vqa.soft_accuracy"), {"a.b:vqa": "soft_accuracy"}) == "a.b:vqa"
