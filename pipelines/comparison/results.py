"""Compute the comparison's numbers from the evaluations of all arms, as one JSON-like document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipelines.comparison.config import FEWEST_SEEDS, CompareConfig, evidence
from pipelines.comparison.plan import Run
from pipelines.comparison.statistics import (
    FEWEST_IMAGES,
    Interval,
    Measured,
    holm,
    interval,
    measure,
    ratio_of_sums,
    smallest_seen,
)
from pipelines.core import storage
from pipelines.core.parquet import read_file
from pipelines.evaluation.results import METRICS, SAMPLE_SCORES
from pipelines.scoring.estimates import Array
from pipelines.scoring.metrics.catalog import find_metric

ALPHA = 0.05
"""Significance level of the tests."""
Document = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """One model's scores on the n questions of one group, about g images.

    Attributes:
        sample_ids: (n) ids of the questions.
        scores: (n,) score of each question.
        sums: (g, k) the k statistics that the primary metric is computed from, summed over the questions of each image;
            images in ascending order of their ids.
    """

    sample_ids: Sequence[str]
    scores: Array
    sums: Array


@dataclass(frozen=True)
class Evaluation:
    """The results of one evaluation step.

    Attributes:
        folder: folder of the step.
        metrics: content of its `metrics.json`.
        groups: the model's scores by group.
    """

    folder: str
    metrics: Mapping[str, Any]
    groups: Mapping[str, Answers]


@dataclass(frozen=True)
class Results:
    """All evaluations of a comparison, by run and strength of tag noise; all models answered the same questions.

    Raises:
        ValueError: an arm lacks a seed at some strength, so the seeds of the other arms have no pair.
    """

    evaluations: Mapping[tuple[Run, float], Evaluation]
    arms: Sequence[str]
    seeds: Sequence[int]

    def __post_init__(self) -> None:
        strengths = dict.fromkeys(strength for _, strength in self.evaluations)
        missing = [
            f"{run} at tag noise {strength:g}"
            for run in (Run(arm, seed) for arm in self.arms for seed in self.seeds)
            for strength in strengths
            if (run, strength) not in self.evaluations
        ]
        if missing:
            raise ValueError(f"No evaluation of {'; '.join(missing)}: every arm needs every seed to be compared.")

    def of(self, arm: str, strength: float = 0.0) -> list[Evaluation]:
        """Return an arm's evaluations at a strength of tag noise, one per seed."""
        return [self.evaluations[Run(arm, seed), strength] for seed in self.seeds]

    def scores(self, arm: str, group: str) -> Array:
        """Return the scores of a group's questions without tag noise, averaged over the arm's seeds, (n,)."""
        return np.mean([evaluation.groups[group].scores for evaluation in self.of(arm)], axis=0)

    @property
    def first(self) -> Evaluation:
        """An arbitrary evaluation, for values that are equal in all of them."""
        return next(iter(self.evaluations.values()))


def read_evaluation(folder: str) -> Evaluation:
    """Return the metrics and scores of a finished evaluation.

    Args:
        folder: folder of the evaluation step.
    """
    metrics = storage.read_json(storage.join(folder, METRICS))
    table = read_file(storage.join(folder, SAMPLE_SCORES))
    groups = {}
    for group in metrics["tasks"]:
        rows = table.filter(pc.equal(table["group"], group))
        scores = rows["score"].to_numpy()
        outcomes = rows["outcomes"].to_pylist()
        statistics = np.stack([scores, np.ones_like(scores)], axis=1)
        if find_metric(metrics["tasks"][group]["metric"]).formula is not None:
            statistics = np.asarray(outcomes, dtype=np.float64)
        images, image_index = np.unique(np.asarray(rows["image_id"].to_pylist()), return_inverse=True)
        sums = np.zeros((len(images), statistics.shape[1]))
        np.add.at(sums, image_index, statistics)
        groups[group] = Answers(rows["sample_id"].to_pylist(), scores, sums)
    return Evaluation(folder, metrics, groups)


def measure_group(evaluations: Mapping[str, Sequence[Evaluation]], group: str, resamples: int) -> dict[str, Measured]:
    """Return the primary metric of a group for every arm, all on the same bootstrap draws of images.

    Args:
        evaluations: evaluations by arm, one per seed.
        group: the group of questions.
        resamples: number of bootstrap draws.

    Raises:
        ValueError: the models answered different questions, or about fewer than two images.
    """
    answers = [evaluation.groups[group] for by_seed in evaluations.values() for evaluation in by_seed]
    if any(other.sample_ids != answers[0].sample_ids for other in answers):
        raise ValueError(f"The models did not answer the same questions of {group!r}, so they cannot be compared.")
    metric = next(iter(evaluations.values()))[0].metrics["tasks"][group]["metric"]
    sums = {arm: np.stack([model.groups[group].sums for model in by_seed]) for arm, by_seed in evaluations.items()}
    return measure(sums, find_metric(metric).formula or ratio_of_sums, resamples)


def analyze(config: CompareConfig, results: Results) -> Document:
    """Return the comparison's numbers, by group of questions.

    They are each arm's primary metric with its interval, each difference from the baseline with its test, and both at
    every strength of tag noise. The p-values without noise are adjusted together by Holm's method; those with noise are
    exploratory and not adjusted.

    With fewer than `FEWEST_SEEDS` seeds there are no tests: p-values are None and every verdict is "hint".

    Raises:
        ValueError: the models answered different questions, or about fewer than two images.
    """
    groups: Document = {}
    for key in results.first.groups:
        by_strength = {
            strength: measure_group({arm: results.of(arm, strength) for arm in results.arms}, key, config.resamples)
            for strength in config.strengths
        }
        groups[key] = _group(config, results, key, by_strength)
    effects = [effect for group in groups.values() for effect in group["effects"].values()]
    tested = len(results.seeds) >= FEWEST_SEEDS
    adjusted = holm([effect["p"] for effect in effects]) if tested else [None] * len(effects)
    for effect, p in zip(effects, adjusted, strict=True):
        effect["p_holm"] = p
        effect["verdict"] = verdict(effect["value"], p)
    return {
        "evidence": evidence(len(results.seeds)),
        "baseline": config.base_arm,
        "arms": list(results.arms),
        "seeds": list(results.seeds),
        "strengths": config.strengths,
        "decoding": {arm: _decodings(results.of(arm)) for arm in results.arms},
        "tests": len(effects) if tested else 0,
        "shared_stages": [name for name, spec in config.stages.items() if spec.once_per == "comparison"],
        "groups": groups,
        "counts": _counts(results),
    }


def _decodings(evaluations: Sequence[Evaluation]) -> list[Document | None]:
    """Return the decoding settings of an arm's models: one entry if the seeds agree, else one per seed."""
    by_seed = [evaluation.metrics["decoding"] for evaluation in evaluations]
    return by_seed[:1] if all(settings == by_seed[0] for settings in by_seed) else by_seed


def decodings_differ(document: Document) -> bool:
    """Return whether the models were decoded with different settings. Their differences then include this effect."""
    by_arm = list(document["decoding"].values())
    return any(settings != by_arm[0] for settings in by_arm) or any(len(settings) > 1 for settings in by_arm)


def verdict(difference: float, p: float | None) -> str:
    """Return the verdict of a test as one word; "hint" if there was no test (`p` is None).

    A large p-value gives "undecided": it does not show that there is no difference.
    """
    if p is None:
        return "hint"
    if p >= ALPHA:
        return "undecided"
    return "better" if difference > 0 else "worse"


def _group(
    config: CompareConfig, results: Results, key: str, by_strength: Mapping[float, Mapping[str, Measured]]
) -> Document:
    """Return the numbers of one group of questions."""
    task = results.first.metrics["tasks"][key]
    metric = find_metric(task["metric"])
    low, high = metric.primary_bounds
    base = config.base_arm
    plain = by_strength[0.0]
    images = plain[base].images
    return {
        "metric": task["metric"],
        "primary": task["primary"],
        "rule": task["notes"].get("rule", ""),
        "questions": len(results.first.groups[key].sample_ids),
        "example_id": results.first.groups[key].sample_ids[0],
        "images": images,
        "few_images": images < FEWEST_IMAGES,
        "arms": {
            arm: _as_dict(interval(measured).within(low, high)) | {"by_seed": measured.seeds.tolist()}
            for arm, measured in plain.items()
        },
        "effects": {arm: _effect(plain[arm] - plain[base], metric.span) for arm in config.challengers},
        "noise": [
            {
                "strength": strength,
                "arms": {arm: _as_dict(interval(number).within(low, high)) for arm, number in by_arm.items()},
                "effects": {arm: _effect(by_arm[arm] - by_arm[base], metric.span) for arm in config.challengers},
            }
            for strength, by_arm in by_strength.items()
        ],
    }


def _as_dict(estimate: Interval) -> Document:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _effect(difference: Measured, span: float) -> Document:
    """Return a difference with its interval and, with enough seeds for a test, p-value and detectable difference.

    The interval is clipped to [-span, span], the possible values of a difference.
    """
    effect = interval(difference).within(-span, span)
    tested = len(difference.seeds) >= FEWEST_SEEDS
    return _as_dict(effect) | {
        "p": effect.p if tested else None,
        "smallest_seen": smallest_seen(difference) if tested else None,
    }


def _counts(results: Results) -> Document:
    """Return counts of questions and answers without tag noise, by name and arm: one count, or one per seed if they
    differ."""
    counts: Document = {}
    for arm in results.arms:
        for name, by_seed in _by_seed(results.of(arm)).items():
            counts.setdefault(name, {})[arm] = by_seed[:1] if len(set(by_seed)) == 1 else by_seed
    return {name: {arm: by_arm.get(arm, [0]) for arm in results.arms} for name, by_arm in counts.items()}


def _by_seed(evaluations: Sequence[Evaluation]) -> dict[str, list[int]]:
    """Return the counts of an arm's evaluations by name, one per seed."""
    by_seed = []
    for evaluation in evaluations:
        counts = dict(evaluation.metrics["counts"])
        for group, scores in evaluation.metrics["tasks"].items():
            counts |= {f"{group}: {name}": count for name, count in scores["counts"].items()}
        by_seed.append(counts)
    names = dict.fromkeys(name for counts in by_seed for name in counts)
    return {name: [counts.get(name, 0) for counts in by_seed] for name in names}
