"""From the evaluations of all arms to the comparison's numbers: one JSON-like document that the report is made of."""

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
from pipelines.evaluation.run import METRICS, SAMPLE_SCORES
from pipelines.scoring.estimates import Array
from pipelines.scoring.metrics.catalog import find_metric

ALPHA = 0.05
Document = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """One model's scores on the questions of one group.

    Attributes:
        sample_ids: (n) of the questions.
        scores: (n,) each question's share of the primary number.
        sums: (g, k) what the primary number is computed from, summed over each image, by ascending image id.
    """

    sample_ids: Sequence[str]
    scores: Array
    sums: Array


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation left.

    Attributes:
        folder: of the step.
        metrics: its `metrics.json`.
        groups: the model's scores by group.
    """

    folder: str
    metrics: Mapping[str, Any]
    groups: Mapping[str, Answers]


@dataclass(frozen=True)
class Results:
    """All evaluations of a comparison, by run and strength of tag noise; all models answered the same questions.

    Raises:
        ValueError: an arm lacks a seed at some strength: the others' seeds would have nothing to be paired with.
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
        """Return an arm's evaluations by seed."""
        return [self.evaluations[Run(arm, seed), strength] for seed in self.seeds]

    def scores(self, arm: str, group: str) -> Array:
        """(n,) a group's scores without noise, averaged over the arm's seeds."""
        return np.mean([found.groups[group].scores for found in self.of(arm)], axis=0)

    @property
    def first(self) -> Evaluation:
        """Any one of them, for what is the same in all."""
        return next(iter(self.evaluations.values()))


def read_evaluation(folder: str) -> Evaluation:
    """Return the scores of a finished evaluation."""
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
        images, places = np.unique(np.asarray(rows["image_id"].to_pylist()), return_inverse=True)
        sums = np.zeros((len(images), statistics.shape[1]))
        np.add.at(sums, places, statistics)
        groups[group] = Answers(rows["sample_id"].to_pylist(), scores, sums)
    return Evaluation(folder, metrics, groups)


def measure_group(evaluations: Mapping[str, Sequence[Evaluation]], group: str, resamples: int) -> dict[str, Measured]:
    """Return the primary number of a group for every arm, on the same draws of images.

    Args:
        evaluations: by arm, one for each seed.
        group: which questions.
        resamples: draws of the bootstrap.

    Raises:
        ValueError: the models answered different questions, or about fewer than two images.
    """
    every = [found.groups[group] for by_seed in evaluations.values() for found in by_seed]
    if any(found.sample_ids != every[0].sample_ids for found in every):
        raise ValueError(f"The models did not answer the same questions of {group!r}, so they cannot be compared.")
    metric = next(iter(evaluations.values()))[0].metrics["tasks"][group]["metric"]
    sums = {arm: np.stack([found.groups[group].sums for found in by_seed]) for arm, by_seed in evaluations.items()}
    return measure(sums, find_metric(metric).formula or ratio_of_sums, resamples)


def analyze(config: CompareConfig, results: Results) -> Document:
    """The comparison's numbers: each arm's with its interval, each difference from the baseline with its test, and both
    at every strength of tag noise. The tests without noise are adjusted together; those with noise are for looking.

    With fewer than `FEWEST_SEEDS` seeds there are no tests: p-values are None and every verdict is "hint".
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
    """Return the effective settings of decoding of an arm's models: one where the seeds agree, else one per seed."""
    by_seed = [evaluation.metrics["decoding"] for evaluation in evaluations]
    return by_seed[:1] if all(settings == by_seed[0] for settings in by_seed) else by_seed


def decodings_differ(document: Document) -> bool:
    """Return whether the models of a comparison were decoded with different settings; numbers then include that."""
    by_arm = list(document["decoding"].values())
    return any(settings != by_arm[0] for settings in by_arm) or any(len(settings) > 1 for settings in by_arm)


def verdict(difference: float, p: float | None) -> str:
    """Return the verdict of a test in a word: no difference shown is not the same as no difference. No test: a hint."""
    if p is None:
        return "hint"
    if p >= ALPHA:
        return "undecided"
    return "better" if difference > 0 else "worse"


def _group(
    config: CompareConfig, results: Results, key: str, by_strength: Mapping[float, Mapping[str, Measured]]
) -> Document:
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
            arm: _as_dict(interval(found).within(low, high)) | {"by_seed": found.seeds.tolist()}
            for arm, found in plain.items()
        },
        "effects": {arm: _effect(plain[arm] - plain[base], metric.span) for arm in config.challengers},
        "noise": [
            {
                "strength": strength,
                "arms": {arm: _as_dict(interval(found).within(low, high)) for arm, found in measured.items()},
                "effects": {arm: _effect(measured[arm] - measured[base], metric.span) for arm in config.challengers},
            }
            for strength, measured in by_strength.items()
        ],
    }


def _as_dict(found: Interval) -> Document:
    return {"value": found.value, "low": found.low, "high": found.high}


def _effect(difference: Measured, span: float) -> Document:
    """Return a difference with its interval and, with enough seeds for a test, its p-value and the test's power.

    The interval is cut to [-span, span], the differences that the metric can have.
    """
    effect = interval(difference).within(-span, span)
    tested = len(difference.seeds) >= FEWEST_SEEDS
    return _as_dict(effect) | {
        "p": effect.p if tested else None,
        "smallest_seen": smallest_seen(difference) if tested else None,
    }


def _counts(results: Results) -> Document:
    """What became of the questions without noise, by what and arm: a number, or one for each seed where they differ."""
    counts: Document = {}
    for arm in results.arms:
        for what, by_seed in _by_seed(results.of(arm)).items():
            counts.setdefault(what, {})[arm] = by_seed[:1] if len(set(by_seed)) == 1 else by_seed
    return {what: {arm: by_arm.get(arm, [0]) for arm in results.arms} for what, by_arm in counts.items()}


def _by_seed(evaluations: Sequence[Evaluation]) -> dict[str, list[int]]:
    found = []
    for one in evaluations:
        counts = dict(one.metrics["counts"])
        for group, scores in one.metrics["tasks"].items():
            counts |= {f"{group}: {name}": count for name, count in scores["counts"].items()}
        found.append(counts)
    names = dict.fromkeys(name for counts in found for name in counts)
    return {name: [counts.get(name, 0) for counts in found] for name in names}
